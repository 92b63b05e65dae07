"""The rule by which a dataset's label rasters are read: which values are changed, unchanged, ignored, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.datasets.label_options import LabelOptions
from storage.datasets.label_values import (
    DECLARED,
    PLAIN,
    TRANSPARENT,
    Coding,
    LabelCounts,
    coding_of,
    common_coding,
    listed,
)
from storage.errors import InputError
from tiling.conventions import CHANGED, IGNORED, UNCHANGED

_MOST_IGNORED = 0.5
_OPTIONS = "--changed, --unchanged and --ignored settle it"


class LabelError(InputError):
    """Label rasters that cannot be read by one rule.

    Attributes:
        problems: messages, one for each raster that does not fit, or one about all of them.
        is_of_all: whether it is about all of them together.
    """

    def __init__(self, problems: Sequence[str], *, is_of_all: bool = True) -> None:
        super().__init__("\n  ".join(problems))
        self.problems, self.is_of_all = tuple(problems), is_of_all


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """How label rasters are read.

    Attributes:
        changed, unchanged, ignored: spans of values, (lowest, highest), both included; a value alone is a span too.
        nodata: values that a raster declares nodata and that are read all the same, because they are a class.
        reads_transparent: whether a transparent pixel counts as its value, instead of being ignored.
        why: what the rule rests on, in words.
        is_given: whether the user named the values.
        warnings: what a person should look at.
    """

    changed: tuple[tuple[float, float], ...]
    unchanged: tuple[tuple[float, float], ...]
    ignored: tuple[tuple[float, float], ...] = ()
    nodata: tuple[float, ...] = ()
    reads_transparent: bool = False
    why: str
    is_given: bool = False
    warnings: tuple[str, ...] = ()

    def apply(self, path: str, values: NDArray[Any], state: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(h, w) uint8: 1 = changed, 0 = unchanged, 255 = ignored.

        Args:
            path: for the message.
            values: (h, w) of any type.
            state: (h, w), as in :mod:`storage.datasets.label_values`.

        Raises:
            InputError: a value that the rule does not name.
        """
        label = np.full(values.shape, IGNORED, dtype=np.uint8)
        legible = state == PLAIN
        if self.nodata:
            legible |= (state == DECLARED) & np.isin(values, self.nodata)
        if self.reads_transparent:
            legible |= state == TRANSPARENT
        if values.dtype.kind == "f":
            legible &= np.isfinite(values)
        named = _within(values, self.ignored)
        for spans, meaning in ((self.changed, CHANGED), (self.unchanged, UNCHANGED)):
            chosen = legible & _within(values, spans)
            label[chosen] = meaning
            named |= chosen
        if (unnamed := legible & ~named).any():
            found = np.unique(values[unnamed])[:4].tolist()
            raise InputError(f"{path} has the values {found}, which the rule of its dataset does not name: {self}")
        return label

    def shares(self, counts: LabelCounts) -> tuple[int, int, int]:
        """Pixels that are changed, unchanged and ignored by this rule."""
        read_nodata = {value: count for value, count in counts.declared.items() if value in self.nodata}
        legible = LabelCounts(plain=counts.plain, declared=read_nodata, transparent=counts.transparent).merged(
            transparent=self.reads_transparent
        )
        changed, unchanged = (
            sum(count for value, count in legible.items() if _names(spans, value))
            for spans in (self.changed, self.unchanged)
        )
        return changed, unchanged, counts.total - changed - unchanged

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; a span of one value is that value."""
        return {
            **{name: _json(getattr(self, name)) for name in ("changed", "unchanged", "ignored")},
            "nodata": _json(_alone(self.nodata)),
            "transparent": "its value" if self.reads_transparent else "ignored",
            "why": self.why,
            "given": self.is_given,
        }

    def __str__(self) -> str:
        parts = [(name, getattr(self, name)) for name in ("changed", "unchanged", "ignored")]
        return ", ".join(f"{_words(spans)} {name}" for name, spans in parts if spans) + f" ({self.why})"


def rule_of(
    counts: Mapping[str, LabelCounts], options: LabelOptions | None = None, *, are_masks: bool = False
) -> LabelRule:
    """The rule of a dataset, by the user's options, else by the values that its label rasters have.

    Args:
        counts: pixels by value of each label raster, by its path.
        are_masks: whether they show what there is at each date, and change is where they differ: then there may be
            masks without a 0 or without anything.

    Raises:
        LabelError: values that are no label or that no option names (with their counts), two codings; nothing that is
            changed, or nothing unchanged; more than half ignored by a rule that nobody gave.
    """
    options = options or LabelOptions()
    pool = sum(counts.values(), LabelCounts())
    rule = _given(counts, pool, options) if options.is_complete else _guessed(counts, options)
    changed, unchanged, ignored = rule.shares(pool)
    warnings = list(rule.warnings)
    files = f"{len(counts)} label files ({next(iter(counts), 'none')} …)"
    if not changed:
        raise LabelError(
            [f"not one changed pixel in {files} by the rule {rule}: nothing to learn, no weight for the class"]
        )
    if not unchanged and not are_masks:
        raise LabelError(
            [
                f"all that is labelled in {files} is changed by the rule {rule}, nothing is unchanged; the values are "
                f"{listed(pool.merged())}: {_OPTIONS}"
            ]
        )
    if changed > unchanged and not are_masks:
        warnings.append(
            f"{changed / (changed + unchanged):.1%} of what is labelled is changed by the rule {rule}: if the labels "
            "mean the opposite, say so with --changed and --unchanged"
        )
    if ignored > _MOST_IGNORED * pool.total:
        words = f"{ignored / pool.total:.1%} of the labels' pixels are ignored by the rule {rule}"
        if not (rule.is_given or options.ignored):
            raise LabelError([f"{words}; {_OPTIONS}"])
        warnings.append(words)
    return replace(rule, warnings=tuple(warnings))


def _guessed(counts: Mapping[str, LabelCounts], options: LabelOptions) -> LabelRule:
    """By plain pixels where they have both classes; else nodata or transparent pixels are one of them."""
    refused: LabelError | None = None
    first: LabelRule | None = None
    for declared, transparent in ((False, False), (True, False), (False, True), (True, True)):
        taken = {
            path: {
                value: count
                for value, count in each.merged(declared=declared, transparent=transparent).items()
                if value not in options.ignored
            }
            for path, each in counts.items()
        }
        try:
            coding, strays = _coding(taken)
        except LabelError as error:
            refused = refused or error
            continue
        if (declared or transparent) and strays:
            continue
        rule = _coded(coding, taken, counts, options, transparent=transparent)
        values = {value for each in taken.values() for value in each}
        if all(any(_names(spans, value) for value in values) for spans in (rule.changed, rule.unchanged)):
            return rule
        first = first or rule
    if refused is not None:
        raise refused
    assert first is not None
    return first


def _coding(counts: Mapping[str, Mapping[float, int]]) -> tuple[Coding, list[float]]:
    """The common coding, and the values that only JPEG explains."""
    codings: dict[str, Coding] = {}
    problems = []
    for path, present in counts.items():
        try:
            codings[path] = coding_of(path, present)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise LabelError(problems, is_of_all=False)
    try:
        coding = common_coding(counts, codings)
    except InputError as error:
        raise LabelError([str(error)]) from error
    exact = {"unchanged": {0}, "0/1": {0, 1}, "0/255": {0, 255}, "0/1/255": {0, 1, 255}}[coding]
    return coding, sorted({value for present in counts.values() for value in present} - exact)


def _coded(
    coding: Coding,
    taken: Mapping[str, Mapping[float, int]],
    counts: Mapping[str, LabelCounts],
    options: LabelOptions,
    *,
    transparent: bool,
) -> LabelRule:
    """The rule of a coding, with what is remarkable about it."""
    values = {value for present in taken.values() for value in present}
    strays = values - {0, 1, 255}
    ignored = _alone(options.ignored)
    warnings = []
    if coding == "0/255":
        is_soft = bool(values - {0, 255})
        changed, unchanged = (((128.0, 255.0),), ((0.0, 127.0),)) if is_soft else (((255.0, 255.0),), ((0.0, 0.0),))
        why = "labels of 0 and 255" + (", softened by JPEG" if is_soft else "")
    else:
        changed, unchanged = ((1.0, max({1.0, *strays})),), ((0.0, 0.0),)
        why = "labels of 0 and 1"
        if coding == "0/1/255":
            ignored += ((255.0, 255.0),)
            why += ", and 255 beside 1 is ignored"
            warnings.append(
                "255 beside 0 and 1 is taken for ignored: --changed, --unchanged and --ignored say otherwise"
            )
        elif strays:
            why += ", with few other values as JPEG makes them"
            odd = ", ".join(f"{value:g}" for value in sorted(strays))
            warnings.append(f"few pixels of {odd} beside 0 and 1 are taken for changed, as JPEG makes them: {_OPTIONS}")
    classes = {0.0, 255.0} if coding == "0/255" else {0.0, 1.0}
    nodata = _declared(counts, classes - set(options.ignored))
    if nodata:
        named = ", ".join(f"{value:g} {'changed' if _names(changed, value) else 'unchanged'}" for value in nodata)
        warnings.append(f"the labels' nodata is one of their two values and is read as that value: {named}")
    if transparent:
        warnings.append("transparent pixels of the labels are read as their value, because one class has no other")
    return LabelRule(
        changed=changed,
        unchanged=unchanged,
        ignored=ignored,
        nodata=tuple(nodata),
        reads_transparent=transparent,
        why=why + ("; --ignored names more" if options.ignored else ""),
        warnings=tuple(warnings),
    )


def _given(counts: Mapping[str, LabelCounts], pool: LabelCounts, options: LabelOptions) -> LabelRule:
    plain = {value for value, count in pool.plain.items() if count}
    reads_transparent = bool(pool.transparent) and not (plain & set(options.changed) and plain & set(options.unchanged))
    rule = LabelRule(
        changed=_alone(options.changed),
        unchanged=_alone(options.unchanged),
        ignored=_alone(options.ignored),
        nodata=tuple(_declared(counts, {*options.changed, *options.unchanged})),
        reads_transparent=reads_transparent,
        why="as the options name them",
        is_given=True,
    )
    every = (*rule.changed, *rule.unchanged, *rule.ignored)
    problems = []
    for path, each in counts.items():
        shown = each.merged(declared=False, transparent=reads_transparent)
        if unnamed := {value: count for value, count in shown.items() if not _names(every, value)}:
            pixels = ", ".join(f"{value:g} ({count:,} px)" for value, count in sorted(unnamed.items())[:8])
            more = f" and {len(unnamed) - 8} more" if len(unnamed) > 8 else ""
            problems.append(
                f"{path} has values that none of --changed, --unchanged and --ignored names: {pixels}{more}; it has "
                f"{listed(shown)} in all"
            )
    if problems:
        raise LabelError(problems, is_of_all=False)
    return rule


def _declared(counts: Mapping[str, LabelCounts], classes: set[float]) -> list[float]:
    """Classes that are some raster's nodata."""
    return sorted({value for each in counts.values() for value in each.declared} & classes)


def _alone(values: Iterable[float]) -> tuple[tuple[float, float], ...]:
    return tuple((value, value) for value in values)


def _within(values: NDArray[Any], spans: Iterable[tuple[float, float]]) -> NDArray[np.bool_]:
    inside = np.zeros(values.shape, dtype=bool)
    for low, high in spans:
        inside |= (values >= low) & (values <= high)
    return inside


def _names(spans: Iterable[tuple[float, float]], value: float) -> bool:
    return any(low <= value <= high for low, high in spans)


def _json(spans: Iterable[tuple[float, float]]) -> list[Any]:
    numbers = [[int(edge) if edge == int(edge) else edge for edge in span] for span in spans]
    return [low if low == high else [low, high] for low, high in numbers]


def _words(spans: Iterable[tuple[float, float]]) -> str:
    return " and ".join(f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in spans)

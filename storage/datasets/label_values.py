"""Values of label rasters, counted, and the coding of change that they are: {0, 1}, {0, 255}, the same as JPEG or RGB,
or {0, 1} with 255 where nothing is known.

Labels found in the wild come in all of these, and scripts that guess wrong train on nothing: the DASNet authors' own
`> 1` turns every label of {0, 1} into "unchanged".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from storage.errors import InputError

Coding = Literal["unchanged", "0/1", "0/255", "0/1/255"]
"""How a label raster codes change; "unchanged" = all 0, which every coding has; the 255 of "0/1/255" is ignored."""

PLAIN, DECLARED, TRANSPARENT, OUTSIDE = range(4)
"""What a label raster says of a pixel beside its value: nothing; that it is nodata, or no number; that it is
transparent or masked; there is no raster."""

_SHOWN = 8
_SOFT = 0.25
_STRAY = 0.002
_NEAR = 32
_HIGHEST_CLASS = 3


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Pixels of a label raster by value, those apart that it says to be none.

    Attributes:
        plain: of which nothing is said.
        declared: that have the raster's nodata value.
        transparent: that its alpha band, mask or palette makes transparent.
        undefined: NaN and infinities.
    """

    plain: Mapping[float, int] = field(default_factory=dict)
    declared: Mapping[float, int] = field(default_factory=dict)
    transparent: Mapping[float, int] = field(default_factory=dict)
    undefined: int = 0

    @property
    def total(self) -> int:
        """Pixels of the raster."""
        groups = (self.plain, self.declared, self.transparent)
        return self.undefined + sum(count for group in groups for count in group.values())

    def merged(self, *, declared: bool = True, transparent: bool = True) -> dict[float, int]:
        """Pixels by value, those that are declared nodata or transparent too if asked for."""
        parts = [self.plain, *([self.declared] if declared else []), *([self.transparent] if transparent else [])]
        return _sum(*parts)

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(
            plain=_sum(self.plain, other.plain),
            declared=_sum(self.declared, other.declared),
            transparent=_sum(self.transparent, other.transparent),
            undefined=self.undefined + other.undefined,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values, of which :meth:`from_json` makes the same again."""
        return {
            "plain": dict(self.plain),
            **{name: dict(group) for name in ("declared", "transparent") if (group := getattr(self, name))},
            **({"undefined": self.undefined} if self.undefined else {}),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> LabelCounts:
        """Also of what the version before wrote: plain pixels alone, by value."""
        if "plain" not in facts:
            facts = {"plain": facts}
        groups = {
            name: {float(value): int(count) for value, count in facts.get(name, {}).items()}
            for name in ("plain", "declared", "transparent")
        }
        return cls(**groups, undefined=int(facts.get("undefined", 0)))


def count_label(values: NDArray[Any], state: NDArray[np.uint8]) -> LabelCounts:
    """Count the pixels of a range.

    Args:
        values: any shape.
        state: of the same shape, :data:`PLAIN` and the others; what is outside is not counted.
    """
    finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, dtype=bool)
    return LabelCounts(
        plain=histogram(values[(state == PLAIN) & finite]),
        declared=histogram(values[(state == DECLARED) & finite]),
        transparent=histogram(values[(state == TRANSPARENT) & finite]),
        undefined=int(((state != OUTSIDE) & ~finite).sum()),
    )


def histogram(values: NDArray[Any]) -> dict[float, int]:
    """Pixels by value."""
    distinct, counts = np.unique(values, return_counts=True)
    return {float(value): int(count) for value, count in zip(distinct, counts, strict=True)}


def coding_of(path: str, counts: Mapping[float, int]) -> Coding:
    """How a raster with these pixels by value codes change.

    JPEG softens a label: around its two values others appear, few and near, on both sides of an edge. So {0, 1} may
    have some 2, and {0, 255} a slope between, as long as nearly all pixels are near one of the two.

    Args:
        path: for the message.

    Raises:
        InputError: three classes, a continuous range, or values that are no labels; with the values.
    """
    present = {value: count for value, count in counts.items() if count}
    if not present or set(present) == {0.0}:
        return "unchanged"
    total, highest = sum(present.values()), max(present)
    whole = all(value == int(value) and 0 <= value <= 255 for value in present)
    if whole and highest == 1:
        return "0/1"
    if whole and 1 in present and set(present) <= {0, 1, 255}:
        return "0/1/255"
    beyond = sum(count for value, count in present.items() if value > 1)
    if whole and highest <= _HIGHEST_CLASS and beyond <= 0.01 * present.get(1.0, 0):
        return "0/1"
    if whole and highest >= 255 - _NEAR and _is_soft(present, total):
        return "0/255"
    raise InputError(
        f"{path} is no label of change: a label has two values, 0 and 1 or 0 and 255 (softened by JPEG at most), this "
        f"one has {listed(present)}; say with --changed, --unchanged and --ignored which are which"
    )


def _is_soft(present: Mapping[float, int], total: int) -> bool:
    """Whether all that is beside 0 and 255 may come from JPEG."""
    low = sum(count for value, count in present.items() if value <= _NEAR)
    high = sum(count for value, count in present.items() if value >= 255 - _NEAR)
    between = total - low - high
    smaller = min(low, high) if low and high else max(low, high)
    beside = low - present.get(0.0, 0), high - present.get(255.0, 0)
    one_sided = (beside[0] == 0) != (beside[1] == 0) and between == 0
    return between <= max(_SOFT * smaller, _STRAY * total) and not (one_sided and sum(beside) > _STRAY * total)


def common_coding(counts: Mapping[str, Mapping[float, int]], codings: Mapping[str, Coding]) -> Coding:
    """The one coding of all label rasters of a dataset.

    Args:
        counts: pixels by value, by path.
        codings: of each of them, by :func:`coding_of`.

    Raises:
        InputError: two codings in one dataset; or 255 beside 1, and it cannot be told which of them is change.
    """
    path_by_coding: dict[Coding, str] = {}
    for path, coding in codings.items():
        if coding != "unchanged":
            path_by_coding.setdefault(coding, path)
    kinds = set(path_by_coding)
    if len(kinds) <= 1 and "0/1/255" not in kinds:
        return next(iter(kinds), "unchanged")
    pool = _sum(*counts.values())
    if "0/1/255" in kinds and set(pool) <= {0, 1, 255}:
        if pool.get(1, 0) < 0.01 * pool[255]:
            raise InputError(
                f"{path_by_coding['0/1/255']} has 255 beside 1, and in {len(counts)} label files 1 is rare "
                f"({listed(pool)}): is 255 changed, or not known? say with --changed, --unchanged and --ignored"
            )
        return "0/1/255"
    if kinds == {"0/1/255", "0/255"} and all(
        counts[path].get(1, 0) <= _SOFT * min(counts[path].get(0, 0), counts[path].get(255, 0))
        for path, coding in codings.items()
        if coding == "0/1/255"
    ):
        return "0/255"  # the others are softened, so this one's 1 is too
    raise InputError(
        "labels of one dataset are coded alike, but "
        + " and ".join(f"{path} has {coding}" for coding, path in sorted(path_by_coding.items()))
        + "; if they can be read as one, say so with --changed, --unchanged and --ignored"
    )


def one_band(path: str, image: NDArray[Any]) -> NDArray[Any]:
    """The label of a raster whose bands are copies of each other: (C, h, w) to (h, w).

    Raises:
        InputError: the bands differ by more than JPEG makes them: colours that mean classes.
    """
    if len(image) > 1:
        spread = image.max(axis=0).astype(np.float64) - image.min(axis=0)
        near = _NEAR if image.max(initial=0) > _HIGHEST_CLASS else 0  # of 0 and 1 no band is nearly another
        if (spread > near).mean() > _STRAY:
            y, x = np.unravel_index(int(spread.argmax()), spread.shape)
            raise InputError(
                f"{path} is coloured, pixel ({int(y)}, {int(x)}) is {tuple(image[:, y, x].tolist())}: a label has one "
                "band, or copies of one"
            )
    return image[0]


def listed(counts: Mapping[float, int]) -> str:
    """Values with their shares, the most frequent first."""
    total = sum(counts.values())
    text = ", ".join(
        f"{value:g} ({100 * counts[value] / total:.3g} %)"
        for value in sorted(counts, key=counts.__getitem__)[::-1][:_SHOWN]
    )
    return text + (f" and {len(counts) - _SHOWN} more values" if len(counts) > _SHOWN else "")


def _sum(*groups: Mapping[float, int]) -> dict[float, int]:
    total: dict[float, int] = {}
    for group in groups:
        for value, count in group.items():
            total[value] = total.get(value, 0) + count
    return total

"""What a label raster holds, by its header and its values, for a person who asks before a dataset is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storage.datasets.label_options import LabelOptions
from storage.datasets.label_rasters import open_label
from storage.datasets.label_rules import LabelError, LabelRule, rule_of

_MOST_PX = 2**26
_MOST_VALUES = 32
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class LabelDescription:
    """A label raster, described.

    Attributes:
        path: as it was given.
        width, height: pixels, of several files the first one's.
        dtype: of its values as they are read.
        crs: None = no georeferencing.
        values: (value, share of the pixels), the most frequent first; at most :data:`_MOST_VALUES`.
        distinct: how many values there are.
        nodata: share of the pixels that are declared nodata, or no number.
        transparent: share that is transparent or masked.
        looked_at: share of the pixels that was read; less than 1 for a large raster.
        rule: how it would be read; None where it is refused.
        refused: why, or None.
        notes: what is remarkable.
    """

    path: str
    width: int
    height: int
    dtype: str
    crs: str | None
    values: tuple[tuple[float, float], ...]
    distinct: int
    nodata: float
    transparent: float
    looked_at: float
    rule: LabelRule | None
    refused: str | None
    notes: tuple[str, ...]

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        shown = ", ".join(f"{value:g} ({share:.2%})" for value, share in self.values[:_SHOWN])
        more = f" and {self.distinct - _SHOWN:,} more" if self.distinct > _SHOWN else ""
        place = self.crs or "no georeferencing"
        apart = [f"{share:.2%} {what}" for share, what in ((self.nodata, "nodata"), (self.transparent, "transparent"))]
        lines = [("label", self.path), ("grid", f"{self.width:,} × {self.height:,} px of {self.dtype}, {place}")]
        lines.append(
            ("values", shown + more + ("" if self.looked_at == 1 else f", in {self.looked_at:.1%} of the rows"))
        )
        if self.nodata or self.transparent:
            lines.append(("apart", ", ".join(apart)))
        return [*lines, ("read as", str(self.rule)) if self.refused is None else ("refused", self.refused)]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "kind": "label",
            **self.__dict__,
            "values": [{"value": value, "share": share} for value, share in self.values],
            "rule": None if self.rule is None else self.rule.to_dict(),
            "notes": list(self.notes),
        }


def describe_label(path: str, options: LabelOptions | None = None) -> LabelDescription:
    """Look at a label raster; of a large one at strips of it.

    Args:
        options: values that are named; None = the rule is guessed.

    Raises:
        InputError: no raster that can be opened or read.
    """
    label = open_label(path)
    counts, looked_at = label.counts(most_px=_MOST_PX)
    merged = counts.merged()
    rule, refused = None, None
    try:
        rule = rule_of({path: counts}, options)
    except LabelError as error:
        refused = f"{error}" + (
            " (this raster alone; others of a dataset may have what it lacks)" if error.is_of_all else ""
        )
    frequent = sorted(merged, key=lambda value: (-merged[value], value))[:_MOST_VALUES]
    return LabelDescription(
        path=path,
        width=label.grid.width,
        height=label.grid.height,
        dtype=label.dtype,
        crs=None if label.grid.crs is None else str(label.grid.crs),
        values=tuple((value, merged[value] / counts.total) for value in frequent),
        distinct=len(merged),
        nodata=(sum(counts.declared.values()) + counts.undefined) / counts.total,
        transparent=sum(counts.transparent.values()) / counts.total,
        looked_at=looked_at,
        rule=rule,
        refused=refused,
        notes=(*label.notes, *(() if rule is None else rule.warnings)),
    )

"""What a date's imagery is, as its headers tell it: bands, values, validity, and what had to be guessed.

A description is made once, when headers are opened; readers read what it says and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

NamedBy = Literal[
    "description", "colour", "wavelength", "file", "asset", "coordinate", "variable", "palette", "position"
]
"""Where a band's name comes from; by position it has none but its number."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One band of a raster.

    Attributes:
        name: the file's own name for it; ``band1`` … where it has none.
        named_by: where that name comes from.
        common_name: what the band sees, one of STAC's common names (red, nir, …); None = not known.
        wavelength: middle of what it sees, micrometres; None = not known.
        scale, offset: physical value = stored value · scale + offset; 1 and 0 where the file declares none.
        nodata: stored value that stands for no value in this band; None = none.
    """

    name: str
    named_by: NamedBy = "position"
    common_name: str | None = None
    wavelength: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None

    @property
    def is_named(self) -> bool:
        return self.named_by != "position"

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What a user says of imagery, in the place of what its files say or leave open.

    Attributes:
        nodata: stored value that stands for no value in every band.
        alpha: number (from 1) of the band that is a mask: not valid where it is 0; 0 = no band is one.
        date_pattern: where the date stands in the names of the files, as :mod:`storage.imagery.dates.patterns` has it.
    """

    nodata: float | None = None
    alpha: int | None = None
    date_pattern: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What decides pixels, as JSON, without what is not said."""
        pixels = {"nodata": self.nodata, "alpha": self.alpha}
        return {name: plain(value) for name, value in pixels.items() if value is not None}


NOTHING_SAID = Overrides()


def band_words(bands: tuple[Band, ...]) -> str:
    """Names of bands for a message, with what each sees where its name does not say so."""
    return ", ".join(
        band.name if band.common_name in (None, band.name.lower()) else f"{band.name} ({band.common_name})"
        for band in bands
    )


def scales_and_offsets(bands: Sequence[Band]) -> tuple[tuple[float, float], ...]:
    """(scale, offset) of each band."""
    return tuple((band.scale, band.offset) for band in bands)


def scale_words(pairs: Sequence[tuple[float, float]]) -> str:
    """Scales and offsets for a message: once where all are the same."""
    return ", ".join(dict.fromkeys(f"scale {scale:.9g} and offset {offset:.9g}" for scale, offset in pairs))


def encoding_words(bands: Sequence[Band]) -> str:
    """Scale and offset of bands for a message: once where all have the same."""
    return scale_words(scales_and_offsets(bands))


def plain(value: Any) -> Any:
    """A value as JSON holds it: NaN and infinities as words."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value

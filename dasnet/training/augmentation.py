"""What may happen to a training sample, as numbers; :mod:`dasnet.training.augment` does it, and needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dasnet.training.augment import Sample

_PEAKS = {"uint8": 255.0, "uint16": 65535.0}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a training sample; the default is CDD's: flips and rotations alone.

    Attributes:
        flips: flips and rotations by 90°, all eight orientations alike.
        crop: side of a random crop, pixels; 0 = the whole sample.
        brightness, contrast, saturation: largest relative change, in [0, 1). Saturation and hue need three bands and
            are left out for others.
        hue: largest change, in [0, 0.5].
        season: largest relative gain, and half of it as offset, of each band on its own, in [0, 1).
        haze: largest share of a bright veil that varies smoothly over the image, in [0, 1).
        blur: probability of a slight Gaussian blur.
        blur_limit: largest standard deviation of that blur, pixels; the smallest is 0.3. 0 = always 0.9.
        sharpen: probability of an unsharp mask, where there is no blur.
        sharpen_limit: largest strength of that mask: so much of what a blur of 1 px takes away is added.
        noise: largest standard deviation of noise, as a share of the value range.
        shift: largest shift of the second date against the first along each axis, pixels; bilinear.
        nodata: probability that an edge of one date is without data.
        scale: largest relative zoom of both dates and label together, in or out, in [0, 1); the label by its nearest
            pixel. Out of the whole sample there is nothing to zoom out to.
        mixed_dates: whether the two dates change places in half of the samples, for networks whose answer depends on
            their order.
        peak: highest value of the images, above which nothing is left to be bright; 0 = their type's: 255, 65,535, or
            1 for float32.
    """

    flips: bool = True
    crop: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    season: float = 0.0
    haze: float = 0.0
    blur: float = 0.0
    blur_limit: float = 0.0
    sharpen: float = 0.0
    sharpen_limit: float = 2.0
    noise: float = 0.0
    shift: float = 0.0
    nodata: float = 0.0
    scale: float = 0.0
    mixed_dates: bool = False
    peak: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "hue": 0.5,
            "blur": 1.0,
            "blur_limit": 4.0,
            "sharpen": 1.0,
            "sharpen_limit": 8.0,
            "nodata": 1.0,
            "shift": 8.0,
            "crop": math.inf,
            "peak": math.inf,
            "noise": 0.5,
        }
        for name in (field.name for field in fields(self) if field.type != "bool"):
            value, limit = getattr(self, name), limits.get(name, 0.999)
            if not (0 <= value <= limit and math.isfinite(value)):
                raise ValueError(f"augmentation: {name} {value} must lie between 0 and {limit:g}")
        if not isinstance(self.crop, int) or self.crop % 8:
            raise ValueError(f"augmentation: crop {self.crop} px must be a whole number and a multiple of 8")

    @property
    def photometric(self) -> bool:
        """Whether values change."""
        colours = self.brightness, self.contrast, self.saturation, self.hue, self.season, self.haze
        return any((*colours, self.blur, self.sharpen, self.noise))

    @property
    def interpolates(self) -> bool:
        """Whether more happens than that pixels change places."""
        return bool(self.photometric or self.shift or self.nodata or self.scale)

    @property
    def idle(self) -> frozenset[str]:
        """Names of what was added later and changes nothing as it is."""
        idle = {name for name in ("sharpen", "scale", "mixed_dates") if not getattr(self, name)}
        if not (self.blur and self.blur_limit):
            idle.add("blur_limit")
        if not self.sharpen:
            idle.add("sharpen_limit")
        return frozenset(idle)

    def __call__(self, sample: Sample, *, seed: int) -> Sample:
        """An augmented copy; the same seed gives the same bits.

        Raises:
            ValueError: the crop is larger than the sample.
        """
        from dasnet.training.augment import alone

        return alone(sample, self, seed=seed)


PSEUDO_CHANGES = Augmentation(
    brightness=0.15, contrast=0.15, saturation=0.25, season=0.12, haze=0.25, blur=0.15, shift=0.7
)
"""Flips, and what differs between two dates without being a change. No hue: it takes as long as all the rest, and gains
of single bands do nearly the same."""

PSEUDO_CHANGE_FIELDS = tuple(
    field.name for field in fields(Augmentation) if field.name not in ("flips", "crop", "scale", "mixed_dates", "peak")
)
"""Strengths of pseudo-changes; 0 each is none."""


def highest_value(dtype: str, peak: float) -> float:
    """What augmentation takes for the highest value of images of a type; `peak` = 0: the type's own, float32's is 1."""
    return peak or _PEAKS.get(dtype, 1.0)

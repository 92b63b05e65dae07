"""Augmentation of bitemporal samples while training.

What moves pixels moves both dates, their validity and the label together. What changes values does so to each date on
its own: season, haze, sun and sensor are exactly what must not be mistaken for a change.

Every random number comes from a generator of the sample's own seed, never from torch's global one, so that samples can
be made in any order, by several threads, and again after a resume. That is why the functional operations of
torchvision's v2 transforms are used and not their classes, which draw from the global generator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dasnet.networks._torchvision import transforms_v2
from dasnet.training.augmentation import Augmentation, highest_value
from tiling.conventions import IGNORED

_ops = transforms_v2.functional
_VEIL = 4


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample, or what augmentation made of it.

    Attributes:
        before, after: (C, s, s), 0 where invalid; uint8, uint16 or float32 in the store, float32 in the same units
            after augmentation.
        valid: (2, s, s) bool, True = valid in that date.
        label: (s, s) uint8: 1 = changed, 0 = unchanged, 255 = ignored.
    """

    before: Tensor
    after: Tensor
    valid: Tensor
    label: Tensor


def augmented(sample: Sample, augmentation: Augmentation, *, seed: int) -> Sample:
    """An augmented copy; the same seed gives the same bits.

    Raises:
        ValueError: the crop is larger than the sample.
    """
    random = torch.Generator().manual_seed(seed)
    peak = highest_value(str(sample.before.dtype).removeprefix("torch."), augmentation.peak)
    result = sample
    if sample.before.dtype == torch.uint16:  # few operations take it
        result = replace(sample, before=sample.before.float(), after=sample.after.float())
    if augmentation.crop:
        result = _cropped(result, augmentation.crop, random)
    if augmentation.flips:
        result = _turned(result, random)
    images = [image.to(torch.float32) / peak for image in (result.before, result.after)]
    if augmentation.photometric:
        images = [
            _recoloured(image, valid, augmentation, random) for image, valid in zip(images, result.valid, strict=True)
        ]
    result = replace(result, before=images[0], after=images[1], valid=result.valid.clone(), label=result.label.clone())
    if augmentation.shift:
        result = _shifted(result, augmentation.shift, random)
    if augmentation.nodata:
        result = _with_an_edge_missing(result, augmentation.nodata, random)
    both = result.valid[0] & result.valid[1]
    return Sample(
        before=(result.before * peak) * result.valid[0],
        after=(result.after * peak) * result.valid[1],
        valid=result.valid,
        label=torch.where(both, result.label, IGNORED).to(torch.uint8),
    )


def _recoloured(image: Tensor, valid: Tensor, augmentation: Augmentation, random: torch.Generator) -> Tensor:
    """(C, s, s) in [0, 1] to the same under another sky."""
    bands = len(image)
    season = _uniform(random, 1 - augmentation.season, 1 + augmentation.season, bands)
    offset = _uniform(random, -augmentation.season / 2, augmentation.season / 2, bands)
    brightness = _uniform(random, 1 - augmentation.brightness, 1 + augmentation.brightness).item()
    contrast = _uniform(random, 1 - augmentation.contrast, 1 + augmentation.contrast).item()
    saturation = _uniform(random, 1 - augmentation.saturation, 1 + augmentation.saturation).item()
    hue = _uniform(random, -augmentation.hue, augmentation.hue).item()
    veil = _uniform(random, 0, augmentation.haze) * torch.rand((1, 1, _VEIL, _VEIL), generator=random)
    blurred, noisy = _uniform(random, 0, 1).item() < augmentation.blur, _uniform(random, 0, augmentation.noise).item()
    if augmentation.season:
        mean = (image * valid).sum(dim=(1, 2), keepdim=True) / valid.sum().clamp(min=1)
        image = (image - mean) * season[:, None, None] + mean * (1 + offset[:, None, None])
    if augmentation.brightness:
        image = image * brightness
    if augmentation.contrast:
        centre = (image * valid).sum() / (bands * valid.sum()).clamp(min=1)
        image = (image - centre) * contrast + centre
    image = image.clamp(0, 1)
    if bands == 3 and augmentation.saturation:
        image = _ops.adjust_saturation(image, saturation)
    if bands == 3 and augmentation.hue:
        image = _ops.adjust_hue(image, hue)
    if augmentation.haze:
        smooth = F.interpolate(veil, size=image.shape[-2:], mode="bilinear", align_corners=True)[0]
        image = image + (0.9 - image) * smooth
    if blurred:
        image = _blurred(image, valid)
    if noisy:
        image = image + noisy * torch.randn(image.shape, generator=random)
    return image.clamp(0, 1)


def _uniform(random: torch.Generator, low: float, high: float, count: int = 1) -> Tensor:
    return torch.rand(count, generator=random) * (high - low) + low


def _whole(random: torch.Generator, high: int) -> int:
    """An integer in [0, high)."""
    return int(torch.randint(high, (1,), generator=random))


def _each(sample: Sample, operation: object) -> Sample:
    """The same operation on whatever has pixels."""
    assert callable(operation)
    return Sample(
        before=operation(sample.before),
        after=operation(sample.after),
        valid=operation(sample.valid),
        label=operation(sample.label[None])[0],
    )


def _cropped(sample: Sample, side: int, random: torch.Generator) -> Sample:
    height, width = sample.label.shape
    if side > min(height, width):
        raise ValueError(f"a crop of {side} px does not fit into samples of {width} × {height} px")
    y, x = _whole(random, height - side + 1), _whole(random, width - side + 1)
    return _each(sample, lambda pixels: pixels[:, y : y + side, x : x + side])


def _turned(sample: Sample, random: torch.Generator) -> Sample:
    mirrored, quarters = _whole(random, 2), _whole(random, 4)
    if mirrored:
        sample = _each(sample, _ops.horizontal_flip)
    return _each(sample, lambda pixels: torch.rot90(pixels, quarters, dims=(-2, -1)))


def _blurred(image: Tensor, valid: Tensor) -> Tensor:
    """Slightly blurred; an average over valid pixels alone, since a dark seam along missing data would be a change."""
    kernel, sigma = [5, 5], [0.9, 0.9]
    if valid.all():
        return _ops.gaussian_blur(image, kernel_size=kernel, sigma=sigma)
    weight = valid[None].to(image.dtype)
    weighted = _ops.gaussian_blur(torch.cat([image * weight, weight]), kernel_size=kernel, sigma=sigma)
    return weighted[:-1] / weighted[-1:].clamp(min=1e-6)  # no weight: invalid, and far from any valid pixel


def _shifted(sample: Sample, largest: float, random: torch.Generator) -> Sample:
    """The second date by a part of a pixel; what is drawn from invalid pixels or from outside becomes invalid."""
    move = _uniform(random, -largest, largest, 2).tolist()
    both = torch.cat([sample.after, sample.valid[1:].float()])
    moved = _ops.affine(
        both,
        angle=0.0,
        translate=move,
        scale=1.0,
        shear=[0.0, 0.0],
        interpolation=transforms_v2.InterpolationMode.BILINEAR,
    )
    valid = moved[-1] > 0.999
    return replace(sample, after=moved[:-1], valid=torch.stack([sample.valid[0], valid]))


def _with_an_edge_missing(sample: Sample, probability: float, random: torch.Generator) -> Sample:
    drawn = _uniform(random, 0, 1, 3).tolist()
    date, side = _whole(random, 2), _whole(random, 4)
    if drawn[0] >= probability:
        return sample
    height, width = sample.label.shape
    if side % 2:  # the turn below swaps them
        height, width = width, height
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    slanted = torch.rot90(y + (drawn[1] - 0.5) * x, side) < 0.05 + 0.4 * drawn[2]
    valid = sample.valid.clone()
    valid[date] &= ~slanted
    return replace(sample, valid=valid)

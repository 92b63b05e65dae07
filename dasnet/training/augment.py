"""Augmentation of bitemporal samples while training: whole batches at a time, on whatever device holds them.

What moves pixels moves both dates, their validity and the label together. What changes values does so to each date on
its own: season, haze, sun and sensor are exactly what must not be mistaken for a change.

Every operation takes each sample by itself, in sums of one order and with numbers of its own
(:mod:`dasnet.training.draws`): a sample has the same bits alone and in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from dasnet.training.augmentation import Augmentation, highest_value
from dasnet.training.draws import VEIL, Draws, OfDate, OfPair, Place, drawn
from tiling.conventions import IGNORED

_SIGMA, _SMALLEST_SIGMA, _MASK_SIGMA = 0.9, 0.3, 1.0
"""Standard deviations, pixels: of a blur without a limit, of the slightest blur, of the unsharp mask."""


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


@dataclass(frozen=True, kw_only=True)
class Stack:
    """b samples side by side; what belongs to a date has 2b rows, the first dates' before the second dates'.

    Attributes:
        images: (2b, C, h, w), 0 where invalid; in the stored type, or float32 in the same units.
        valid: (2b, h, w) bool, True = valid.
        labels: (b, h, w) uint8: 1, 0, 255.
    """

    images: Tensor
    valid: Tensor
    labels: Tensor


def placed(sample: Sample, place: Place) -> Sample:
    """The pixels of a place, as they are to lie; nothing is interpolated, and of the stored type."""
    rows, columns = (slice(first, first + n) for first, n in ((place.row, place.height), (place.column, place.width)))

    def laid(pixels: Tensor) -> Tensor:
        if pixels.dtype == torch.uint16:  # few operations take it
            return laid(pixels.view(torch.int16)).view(torch.uint16)
        pixels = pixels[..., rows, columns]
        pixels = pixels.flip(-1) if place.mirrored else pixels
        return torch.rot90(pixels, place.quarters, dims=(-2, -1)) if place.quarters else pixels

    before, after, valid, label = map(laid, (sample.before, sample.after, sample.valid, sample.label))
    if place.swapped:
        before, after, valid = after, before, valid.flip(0)
    return Sample(before=before, after=after, valid=valid, label=label)


def as_float(images: Tensor) -> Tensor:
    """Images of a stored type as float32 in the same units."""
    if images.dtype == torch.uint16:
        return (images.view(torch.int16).to(torch.int32) & 0xFFFF).float()
    return images.to(torch.float32, copy=True)


def augmented(stack: Stack, draws: Draws, augmentation: Augmentation) -> Stack:
    """Samples that lie as they are to lie, with all else that was drawn for them: float32 images in the stored units.

    Args:
        draws: on the CPU, wherever the stack is.
    """
    peak = highest_value(str(stack.images.dtype).removeprefix("torch."), augmentation.peak)
    images, valid, labels = as_float(stack.images), stack.valid, stack.labels
    if augmentation.interpolates and peak != 1:
        images = images.div_(torch.tensor(peak, device=images.device))
    if augmentation.scale:
        images, valid, labels = _zoomed(images, valid, labels, draws, augmentation)
    if augmentation.photometric:
        images = _recoloured(images, valid, draws, augmentation)
    if augmentation.shift:
        images, valid = _shifted(images, valid, draws, augmentation.shift)
    if augmentation.nodata:
        valid = _with_an_edge_missing(valid, draws, augmentation.nodata)
    if augmentation.interpolates and peak != 1:
        images = images.mul_(peak)
    before, after = valid.chunk(2)
    return Stack(images=images.mul_(valid[:, None]), valid=valid, labels=labels.masked_fill(~(before & after), IGNORED))


def alone(sample: Sample, augmentation: Augmentation, *, seed: int) -> Sample:
    """One sample augmented by itself; the same seed gives the same bits as in any batch.

    Raises:
        ValueError: the crop is larger than the sample.
    """
    bands, height, width = sample.before.shape
    place, draws = drawn(seed, augmentation, bands=bands, height=height, width=width)
    one = placed(sample, place)
    stack = Stack(images=torch.stack([one.before, one.after]), valid=one.valid, labels=one.label[None])
    made = augmented(stack, draws, augmentation)
    return Sample(before=made.images[0], after=made.images[1], valid=made.valid.clone(), label=made.labels[0])


def _between(low: float, high: float, number: Tensor) -> Tensor:
    return number * (high - low) + low


def _as_pixels(numbers: Tensor, images: Tensor) -> Tensor:
    """(n,) or (n, C) numbers as factors of (n, C, h, w), on the images' device."""
    return numbers.to(images.device)[..., None, None].reshape(len(numbers), -1, 1, 1)


def _recoloured(images: Tensor, valid: Tensor, draws: Draws, augmentation: Augmentation) -> Tensor:
    """(2b, C, h, w) in [0, 1] to the same under another sky."""
    bands = images.shape[1]
    if augmentation.season or augmentation.brightness or augmentation.contrast:
        images = _relit(images, valid, draws, augmentation)
    images = images.clamp_(0, 1)
    if bands == 3 and augmentation.saturation:
        red, green, blue = images.unbind(1)
        grey = (red * 0.2989 + green * 0.587 + blue * 0.114)[:, None]
        share = _around_one(draws.of_dates(OfDate.SATURATION), augmentation.saturation)
        images = images.mul_(_as_pixels(share, images)).add_(grey * _as_pixels(1 - share, images)).clamp_(0, 1)
    if bands == 3 and augmentation.hue:
        turn = _between(-augmentation.hue, augmentation.hue, draws.of_dates(OfDate.HUE))
        images = _hue_turned(images, _as_pixels(turn, images)[:, 0])
    if augmentation.haze:
        veil = (draws.of_dates(OfDate.HAZE) * augmentation.haze)[:, None, None] * draws.veil
        smooth = _stretched(veil.to(images.device), images.shape[2], images.shape[3])[:, None]
        images = images.mul_(1 - smooth).add_(0.9 * smooth)
    images = _focused(images, valid, draws, augmentation)
    if augmentation.noise:
        deviation = draws.of_dates(OfDate.NOISE) * augmentation.noise
        images = images.add_(_noise(draws.seeds, images) * _as_pixels(deviation, images))
    return images.clamp_(0, 1)


def _around_one(number: Tensor, strength: float) -> Tensor:
    return _between(1 - strength, 1 + strength, number)


def _relit(images: Tensor, valid: Tensor, draws: Draws, augmentation: Augmentation) -> Tensor:
    """Each band's gain and offset about its mean, then brightness, then contrast about the mean of all.

    That is one gain and one offset of each band: the means that the later steps need follow from those of the bands.
    """
    gains, offsets = draws.season
    gain = _around_one(gains, augmentation.season).to(images.device)
    offset = _between(-augmentation.season / 2, augmentation.season / 2, offsets).to(images.device)
    brightness = _around_one(draws.of_dates(OfDate.BRIGHTNESS), augmentation.brightness).to(images.device)[:, None]
    contrast = _around_one(draws.of_dates(OfDate.CONTRAST), augmentation.contrast).to(images.device)[:, None]
    # rows first: one long sum would be cut by the number of threads
    sums = (images * valid[:, None]).sum(dim=3).sum(dim=2)
    mean = sums / valid.sum(dim=2).sum(dim=1).clamp(min=1)[:, None]
    moved = mean * (1 + offset)
    centre = moved.sum(dim=1, keepdim=True) / images.shape[1] * brightness
    base = ((moved - mean * gain) * brightness - centre) * contrast + centre
    return images.mul_(_as_pixels(gain * brightness * contrast, images)).add_(_as_pixels(base, images))


def _hue_turned(images: Tensor, turn: Tensor) -> Tensor:
    """(n, 3, h, w) in [0, 1] with hues turned by a share of the circle, (n, 1, 1); lightest and darkest band stay."""
    red, green, blue = images.unbind(1)
    high, low = images.amax(dim=1), images.amin(dim=1)
    chroma = high - low
    divisor = torch.where(chroma > 0, chroma, 1)
    sixth = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sixth = sixth + turn * 6
    turned = []
    for start in (5, 3, 1):  # red, green, blue by the closed form of HSV
        place = torch.remainder(sixth + start, 6)
        turned.append(high - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(turned, dim=1)


def _stretched(veil: Tensor, height: int, width: int) -> Tensor:
    """(n, VEIL, VEIL) to (n, height, width), bilinear from edge to edge."""
    for dim, size in ((1, height), (2, width)):
        where = torch.arange(size, device=veil.device) * ((VEIL - 1) / max(size - 1, 1))
        first = where.long().clamp(max=VEIL - 2)
        share = (where - first).unsqueeze(1) if dim == 1 else where - first
        veil = veil.index_select(dim, first) * (1 - share) + veil.index_select(dim, first + 1) * share
    return veil


def _focused(images: Tensor, valid: Tensor, draws: Draws, augmentation: Augmentation) -> Tensor:
    """Some images blurred, some of the others sharpened."""
    blurred = draws.of_dates(OfDate.BLUR) < augmentation.blur
    sharpened = (draws.of_dates(OfDate.SHARPEN) < augmentation.sharpen) & ~blurred
    if bool(blurred.any()):
        chosen, numbers = blurred.nonzero()[:, 0], draws.of_dates(OfDate.BLUR_SIGMA)[blurred]
        limit = augmentation.blur_limit
        sigma = _between(min(_SMALLEST_SIGMA, limit), limit, numbers) if limit else torch.full_like(numbers, _SIGMA)
        here = chosen.to(images.device)
        soft = _smoothed(images[here], valid[here], sigma, radius=max(2, ceil(3 * limit)))
        images = _with_some_replaced(images, soft, blurred)
    if bool(sharpened.any()):
        chosen, numbers = sharpened.nonzero()[:, 0], draws.of_dates(OfDate.SHARPEN_STRENGTH)[sharpened]
        here = chosen.to(images.device)
        plain, sigma = images[here], torch.full_like(numbers, _MASK_SIGMA)
        soft = _smoothed(plain, valid[here], sigma, radius=ceil(3 * _MASK_SIGMA))
        mask = (plain - soft).mul_(_as_pixels(numbers * augmentation.sharpen_limit, images))
        images = _with_some_replaced(images, mask.add_(plain), sharpened)
    return images


def _with_some_replaced(images: Tensor, others: Tensor, chosen: Tensor) -> Tensor:
    """Images (n, …), but where `chosen` is True the others, in their order. Without a write to numbered places, which a
    GPU that computes in one order would sort first."""
    place = (chosen.cumsum(0) - 1).clamp(min=0).to(images.device)
    return torch.where(chosen.to(images.device)[:, None, None, None], others.index_select(0, place), images)


def _smoothed(images: Tensor, valid: Tensor, sigma: Tensor, *, radius: int) -> Tensor:
    """A Gaussian average over valid pixels alone, since a dark seam along missing data would be a change."""
    where = torch.arange(-radius, radius + 1, dtype=torch.float32)
    taps = torch.exp(-0.5 * (where / sigma.clamp(min=1e-3)[:, None]).square())
    taps = (taps / taps.sum(dim=1, keepdim=True)).to(images.device)
    weight = valid[:, None].to(images.dtype)
    summed = _filtered(torch.cat([images * weight, weight], dim=1), taps, taps, mirror=True)
    return summed[:, :-1] / summed[:, -1:].clamp(min=1e-6)  # no weight: invalid, and far from any valid pixel


def _filtered(images: Tensor, along_y: Tensor, along_x: Tensor, *, mirror: bool) -> Tensor:
    """(n, C, h, w) averaged along both axes with (n, 2r + 1) taps of each image's own.

    Args:
        mirror: what lies outside is the image's reflection; else it is 0.
    """
    for dim, taps in ((2, along_y), (3, along_x)):
        size, radius = images.shape[dim], taps.shape[1] // 2
        outside = torch.arange(-radius, size + radius, device=images.device)
        index = (size - 1 - (size - 1 - outside.abs()).abs()).clamp(0, size - 1)
        padded = images.index_select(dim, index)
        if not mirror:
            padded.narrow(dim, 0, radius).zero_()
            padded.narrow(dim, size + radius, radius).zero_()
        images = padded.narrow(dim, 0, size) * taps[:, 0, None, None, None]
        for number in range(1, taps.shape[1]):
            images += padded.narrow(dim, number, size) * taps[:, number, None, None, None]
    return images


def _shifted(images: Tensor, valid: Tensor, draws: Draws, largest: float) -> tuple[Tensor, Tensor]:
    """The second dates by a part of a pixel; what is drawn from invalid pixels or from outside becomes invalid."""
    pairs = len(images) // 2
    radius = ceil(largest)
    where = torch.arange(-radius, radius + 1, dtype=torch.float32)
    taps = [  # of two neighbours, by their distance from where a pixel comes from
        (1 - (where + _between(-largest, largest, draws.of_pair(axis))[:, None]).abs()).clamp(min=0).to(images.device)
        for axis in (OfPair.SHIFT_Y, OfPair.SHIFT_X)
    ]
    moved = _filtered(torch.cat([images[pairs:], valid[pairs:, None].float()], dim=1), *taps, mirror=False)
    return torch.cat([images[:pairs], moved[:, :-1]]), torch.cat([valid[:pairs], moved[:, -1] > 0.999])


def _with_an_edge_missing(valid: Tensor, draws: Draws, probability: float) -> Tensor:
    height, width = valid.shape[1:]
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width).expand(height, width)
    side = draws.of_pair(OfPair.NODATA_SIDE).mul(4).long().to(valid.device)
    inwards = torch.stack([y, x, 1 - y, 1 - x]).to(valid.device)[side]  # from above, left, below, right
    along = torch.stack([x, y, x, y]).to(valid.device)[side]
    slant = (draws.of_pair(OfPair.NODATA_SLANT) - 0.5).to(valid.device)[:, None, None]
    depth = (0.05 + 0.4 * draws.of_pair(OfPair.NODATA_DEPTH)).to(valid.device)[:, None, None]
    edge = inwards + along * slant < depth
    date = draws.of_pair(OfPair.NODATA_DATE).mul(2).long()
    drawn = draws.of_pair(OfPair.NODATA) < probability
    missing = torch.cat([drawn & (date == 0), drawn & (date == 1)]).to(valid.device)
    return valid & ~(torch.cat([edge, edge]) & missing[:, None, None])


def _zoomed(
    images: Tensor, valid: Tensor, labels: Tensor, draws: Draws, augmentation: Augmentation
) -> tuple[Tensor, Tensor, Tensor]:
    """Both dates and label at another scale, drawn from a part of their pixels: bilinear, the label by its nearest."""
    largest = 1 + augmentation.scale
    ratio = _between(1 / largest, largest, draws.of_pair(OfPair.ZOOM))
    sources = []
    height, width = labels.shape[1:]
    shown = [augmentation.crop or size for size in (height, width)]
    ratio = ratio.clamp(max=min(height / shown[0], width / shown[1]))
    for dim, size, show, place in ((0, height, shown[0], OfPair.ZOOM_Y), (1, width, shown[1], OfPair.ZOOM_X)):
        first = (size - show * ratio) * draws.of_pair(place)
        centres = (torch.arange(show) + 0.5) * ratio[:, None] + first[:, None]  # (b, show), in pixels of the source
        sources.append((dim, size, centres))
    both = torch.cat([images, valid[:, None].float()], dim=1)
    for dim, size, centres in sources:
        where = (centres - 0.5).clamp(0, size - 1)
        lower = where.long().clamp(max=size - 2)
        share = (where - lower).to(images.device)
        share = torch.cat([share, share])
        share = share[:, None, :, None] if dim == 0 else share[:, None, None, :]
        index = torch.cat([lower, lower]).to(images.device)
        both = _taken(both, index, dim) * (1 - share) + _taken(both, index + 1, dim) * share
        nearest = centres.long().clamp(0, size - 1).to(images.device)
        labels = _taken(labels[:, None], nearest, dim)[:, 0]
    return both[:, :-1].contiguous(), both[:, -1] > 0.999, labels


def _taken(images: Tensor, index: Tensor, dim: int) -> Tensor:
    """Rows (dim 0) or columns (dim 1) of (n, C, h, w) by (n, m) numbers of each image's own."""
    index = index[:, None, :, None] if dim == 0 else index[:, None, None, :]
    shape = list(images.shape)
    shape[2 + dim] = index.shape[2 + dim]
    return images.gather(2 + dim, index.expand(shape))


_ODD = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""The three multipliers of SplitMix64 (Steele, Lea and Flood 2014), as signed numbers of 64 bits."""


def _mixed(numbers: Tensor) -> Tensor:
    """int64 numbers to others that look drawn: SplitMix64, whole numbers alone and so the same on every device."""
    mixed = numbers * _ODD[0]
    for shift, odd in ((30, _ODD[1]), (27, _ODD[2])):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * odd
    return mixed ^ ((mixed >> 31) & ((1 << 33) - 1))


def _noise(seeds: Tensor, images: Tensor) -> Tensor:
    """Nearly normal numbers of mean 0 and deviation 1 for every value of (2b, C, h, w): sums of eight even ones."""
    of_dates = _mixed(torch.cat([seeds * 2, seeds * 2 + 1])).to(images.device)
    places = torch.arange(2 * images[0].numel(), device=images.device).view(2, -1)
    total = torch.zeros(len(images), images[0].numel(), dtype=torch.int64, device=images.device)
    for half in places:
        drawn = _mixed(of_dates[:, None] + half)
        for shift in (0, 16, 32, 48):
            total += (drawn >> shift) & 0xFFFF
    return ((total - 4 * 0xFFFF).float() / (65536 * (8 / 12) ** 0.5)).view_as(images)

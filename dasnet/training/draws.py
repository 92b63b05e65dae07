"""What augmentation draws: the numbers of one sample, from a generator of the sample's own seed.

They are drawn on the CPU, all of them whatever the strengths, and each has a place of its own: so a sample has the same
numbers alone, in a batch, on any rank, device and thread, and a stronger season is the same season, only more of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import ceil

import torch
from torch import Tensor

from dasnet.training.augmentation import Augmentation

VEIL = 4
"""A veil is this many numbers high and wide, and smooth between them."""

_OF_A_PAIR, _OF_A_DATE = 16, 32


class OfPair(IntEnum):
    """Numbers that both dates share, by their place."""

    SHIFT_X = 0
    SHIFT_Y = 1
    NODATA = 2
    NODATA_SLANT = 3
    NODATA_DEPTH = 4
    NODATA_DATE = 5
    NODATA_SIDE = 6
    ZOOM = 7
    ZOOM_Y = 8
    ZOOM_X = 9
    SWAP = 10


class OfDate(IntEnum):
    """Numbers that each date has for itself, by their place; the veil's are the last of them."""

    BRIGHTNESS = 0
    CONTRAST = 1
    SATURATION = 2
    HUE = 3
    HAZE = 4
    BLUR = 5
    BLUR_SIGMA = 6
    NOISE = 7
    SHARPEN = 8
    SHARPEN_STRENGTH = 9


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which pixels of a stored sample are shown, and how they lie.

    Attributes:
        row, column: upper-left pixel of the crop; height, width: its size.
        mirrored: left and right change places, before the turn.
        quarters: turns by 90° against the clock.
        swapped: the second date stands first.
    """

    row: int
    column: int
    height: int
    width: int
    mirrored: bool
    quarters: int
    swapped: bool


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The numbers of b samples.

    Attributes:
        numbers: (b, n) float32 in [0, 1): those of the pair, those of each date, those of each date's bands.
        seeds: (b,) int64, of noise.
    """

    numbers: Tensor
    seeds: Tensor

    def __getitem__(self, samples: slice) -> Draws:
        """Those of some of the samples."""
        return Draws(numbers=self.numbers[samples], seeds=self.seeds[samples])

    def of_pair(self, place: OfPair) -> Tensor:
        """(b,)"""
        return self.numbers[:, place]

    def of_dates(self, place: OfDate) -> Tensor:
        """(2b,), the first dates' before the second dates', as images lie in a batch."""
        first = _OF_A_PAIR + place
        return torch.cat([self.numbers[:, first], self.numbers[:, first + _OF_A_DATE]])

    @property
    def veil(self) -> Tensor:
        """(2b, VEIL, VEIL)"""
        ends = [_OF_A_PAIR + date * _OF_A_DATE for date in (1, 2)]
        return torch.cat([self.numbers[:, end - VEIL * VEIL : end] for end in ends]).unflatten(1, (VEIL, VEIL))

    @property
    def season(self) -> tuple[Tensor, Tensor]:
        """Gains and offsets, (2b, C) each."""
        gains, offsets = self.numbers[:, _OF_A_PAIR + 2 * _OF_A_DATE :].unflatten(1, (2, 2, -1)).unbind(2)
        return torch.cat([gains[:, 0], gains[:, 1]]), torch.cat([offsets[:, 0], offsets[:, 1]])


def drawn(seed: int, augmentation: Augmentation, *, bands: int, height: int, width: int) -> tuple[Place, Draws]:
    """All that is drawn for one sample of that size, pixels.

    Raises:
        ValueError: the crop is larger than the sample.
    """
    random = torch.Generator().manual_seed(seed)
    rows, columns = height, width
    row = column = mirrored = quarters = 0
    if crop := augmentation.crop:
        if crop > min(height, width):
            raise ValueError(f"a crop of {crop} px does not fit into samples of {width} × {height} px")
        side = ceil(crop * (1 + augmentation.scale))  # what a zoom outwards shows
        rows, columns = min(side, height), min(side, width)
        row, column = _whole(random, height - rows + 1), _whole(random, width - columns + 1)
    if augmentation.flips:
        mirrored, quarters = _whole(random, 2), _whole(random, 4)
    numbers = torch.rand(_OF_A_PAIR + 2 * _OF_A_DATE + 4 * bands, generator=random)
    place = Place(
        row=row,
        column=column,
        height=rows,
        width=columns,
        mirrored=bool(mirrored),
        quarters=quarters,
        swapped=augmentation.mixed_dates and float(numbers[OfPair.SWAP]) < 0.5,
    )
    return place, Draws(numbers=numbers[None], seeds=torch.tensor([seed]))


def _whole(random: torch.Generator, high: int) -> int:
    """An integer in [0, high)."""
    return int(torch.randint(high, (1,), generator=random))

"""Overlapping windows of one block become one probability, and how far they disagree is counted."""

from __future__ import annotations

import torch
from torch import Tensor

from tiling.conventions import DISAGREEMENT_BINS, DISAGREEMENT_SCALE, NODATA, level_of


class Blend:
    """Weighted sums over a block, in float32 on one device.

    Windows are added in the order they come, and a product is rounded before it is added: a pixel's bits depend on its
    windows and their order alone, not on where in the block it lies.
    """

    def __init__(self, *, pairs: int, height: int, width: int, taper: Tensor) -> None:
        """Sums of zero for `pairs` × `height` × `width` pixels; `taper` (window,) float32 is one axis of the weight."""
        self._weight = torch.outer(taper, taper)
        self._window = len(taper)
        self._sum = taper.new_zeros((pairs, height, width))
        self._sum_of_squares = taper.new_zeros((pairs, height, width))
        self._sum_of_weights = taper.new_zeros((height, width))
        self._windows = torch.zeros((height, width), dtype=torch.int16, device=taper.device)

    def add(self, probability: Tensor, *, y: int, x: int) -> None:
        """Add one window: (pairs, window, window) float32, upper-left corner at (y, x) of the block."""
        window = (slice(y, y + self._window), slice(x, x + self._window))
        weighted = self._weight * probability
        self._sum[:, *window] += weighted
        self._sum_of_squares[:, *window] += weighted * probability
        self._sum_of_weights[window] += self._weight
        self._windows[window] += 1

    def result(self, valid: Tensor, crop: tuple[slice, slice]) -> tuple[Tensor, Tensor]:
        """The blended probability and the disagreement of a part of the block.

        Args:
            valid: (pairs, h, w) bool on the same device: pixels of `crop` valid in both dates.
            crop: rows and columns of the part.

        Returns:
            (pairs, h, w) uint8 on the CPU, 255 where not valid; and the histogram (256,) int64 on the CPU, as
            tiling.protocols documents it.

        Raises:
            ArithmeticError: a valid pixel has no finite probability: the network returned NaN or infinity, or no window
                covers it.
        """
        weights = self._sum_of_weights[crop]
        mean = self._sum[:, *crop] / weights
        stored = torch.where(valid, level_of(mean), NODATA)
        variance = self._sum_of_squares[:, *crop] / weights - mean * mean
        bins = (variance.clamp(min=0).sqrt() * DISAGREEMENT_SCALE).round()
        compared = bins[valid & (self._windows[crop] > 1)].clamp(max=DISAGREEMENT_BINS - 1)
        if not torch.isfinite(stored).all():
            raise ArithmeticError("the network gave valid pixels no finite probability: are all valid pixels finite?")
        histogram = torch.bincount(compared.to(torch.int64), minlength=DISAGREEMENT_BINS)
        return stored.to(torch.uint8).cpu(), histogram.cpu()

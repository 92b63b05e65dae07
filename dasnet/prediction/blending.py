"""Overlapping windows of one block become one probability, and how far they disagree is counted.

Legend of shapes: P pairs, B windows of s×s pixels in a batch, N in a band, (h, w) the block without its halo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dasnet.prediction.block_windows import BlockWindows, Covering
from tiling.conventions import DISAGREEMENT_BINS, DISAGREEMENT_SCALE, NODATA, level_of

Put = Callable[[NDArray[Any]], Tensor]

_HELD_BYTES = 64 << 20
"""Windows that are held in any case; else no more than eight bytes of a pixel of the block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Band:
    """Rows of windows that are held at a time until they are blended: most often all of a block's. Tensors are on the
    device.

    Attributes:
        windows: N, windows that go through the network.
        table: places for windows, computed or not.
        corners: (2, n) int64, y and x of each window in the block; n is the next multiple of the batch, and the last
            window stands in for those that the last batch lacks.
        corners_on_host: the same.
        places: (N,) int64, of each window in the table.
        taken: (2, n) int64, numbers of windows that earlier blocks left, and their places in the table; None = none.
        kept: (n,) int64, places of the windows that are left to later blocks; None = none.
        corners_kept: (n, 2) int64, their corners in the block, y before x.
        first: row of the block without its halo at which the band begins.
        rows, columns: of each pixel row and column that the band covers.
        computed: (rows and columns of windows) float32, 1 = computed, else 0; None = all are.
    """

    windows: int
    table: int
    corners: Tensor
    corners_on_host: NDArray[np.int64]
    places: Tensor
    taken: Tensor | None
    kept: Tensor | None
    corners_kept: NDArray[np.int64]
    first: int
    rows: Axis
    columns: Axis
    computed: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Axis:
    """The windows that cover each of n pixels of one axis, in ascending order: K, the most that cover one.

    Attributes:
        index: int32, what a pixel adds to its number in the table of windows, int64 where that is longer: (K, n, 1)
            down, (K, n) across.
        weight: float32, of the same shape; 0 = fewer windows cover the pixel.
        window: int64, of the same shape, row or column of windows; None where all are computed.
    """

    index: Tensor
    weight: Tensor
    window: Tensor | None

    @classmethod
    def of(
        cls, covering: Covering, *, window: int, pixel: int, table: int, put: Put, down: bool, complete: bool
    ) -> Axis:
        """`window`, `pixel`: how far one window, and one pixel in it, lie apart in the table; `table`: its length."""
        number = np.int32 if table < 1 << 31 else np.int64

        def sent(array: NDArray[Any]) -> Tensor:
            return put(array[:, :, None] if down else array)

        return cls(
            index=sent((covering.window * window + covering.offset * pixel).astype(number)),
            weight=sent(covering.weight),
            window=None if complete else sent(covering.window),
        )

    @property
    def pixels(self) -> int:
        return self.index.shape[1]

    def ranks(self, part: slice | None = None) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Index, weight and window of the first window of each pixel, of the second, …; of some pixels, None = all."""
        fields = [self.index, self.weight] if self.window is None else [self.index, self.weight, self.window]
        index, weight, *window = ((field if part is None else field[:, part]).unbind() for field in fields)
        return list(zip(index, weight, window[0] if window else [None] * len(index), strict=True))


def bands_of(
    windows: BlockWindows,
    *,
    pairs: int,
    shape: tuple[int, int],
    crop: tuple[slice, slice],
    taper: NDArray[np.float32],
    batch: int,
    put: Put,
) -> list[Band]:
    """The bands of a block, in order.

    Args:
        pairs, shape: of the block, with its halo: they bound what is held.
        crop: rows and columns that are blended, within `shape`.
        taper: (s,) float32 in (0, 1], one axis of the weight.
        batch: windows at a time.
        put: brings an array to the device.
    """
    side, columns = windows.side, len(windows.starts_x)
    most = max(8 * pairs * shape[0] * shape[1], _HELD_BYTES) // (4 * pairs * side * side)
    complete = bool(windows.computed.all())
    across = Covering.of(windows.starts_x, taper=taper, pixels=crop[1])
    table = most * side * side + columns * side * side
    to_axis = partial(Axis.of, table=table, put=put, complete=complete)
    axis_across = to_axis(across, window=side * side, pixel=1, down=False)
    bands = []
    for rows in windows.bands(most):
        if not windows.computed[rows].any():
            continue
        corners, places = windows.places(rows)
        corners_kept, places_kept = windows.places_kept(rows)
        taken = np.stack(windows.places_taken(rows))
        starts = windows.starts_y[rows]
        first, last = max(int(starts[0]), crop[0].start), min(int(starts[-1]) + side, crop[0].stop)
        down = Covering.of(starts, taper=taper, pixels=slice(first, max(first, last)))
        lacking = -len(places) % batch
        corners = np.concatenate([corners, np.repeat(corners[-1:], lacking, axis=0)]).T.copy()
        bands.append(
            Band(
                windows=len(places),
                table=len(starts) * columns,
                corners=put(corners),
                corners_on_host=corners,
                places=put(places),
                taken=put(taken) if taken.size else None,
                kept=put(places_kept) if len(places_kept) else None,
                corners_kept=corners_kept,
                first=first - crop[0].start,
                rows=to_axis(down, window=columns * side * side, pixel=side, down=True),
                columns=axis_across,
                computed=None if complete else put(windows.computed[rows].astype(np.float32)),
            )
        )
    return bands


class Blend:
    """Weighted sums over a block without its halo, in float32 on one device.

    A pixel's windows are added row by row, each row from left to right, and a product is rounded before it is added: so
    a pixel's bits depend on its windows alone, neither on the block nor on the batches nor on who computed them. Each
    window waits in a table until all of its band are there; then each pixel fetches its first window, its second, ….
    Nothing is added to numbered places, which a GPU does in any order, and the calls are as many for all windows as for
    one.
    """

    def __init__(self, *, pairs: int, height: int, width: int, side: int, device: torch.device) -> None:
        """Sums of zero for `pairs` × `height` × `width` pixels; windows are `side` pixels high and wide."""
        self._side = side
        self._table = torch.empty(0, device=device)
        self._sum = torch.zeros((pairs, height, width), device=device)
        self._sum_of_squares = torch.zeros_like(self._sum)
        self._sum_of_weights = torch.zeros((height, width), device=device)
        self._windows = torch.zeros((height, width), dtype=torch.int16, device=device)
        self._stored = torch.empty((pairs, height, width), dtype=torch.uint8, device=device)
        self._histogram = torch.zeros((height, DISAGREEMENT_BINS + 1), dtype=torch.int32, device=device)
        self._finite = torch.ones((height,), dtype=torch.bool, device=device)

    def begin(self, band: Band) -> None:
        """Make room for the windows of a band; those of the one before were folded."""
        shape = (len(self._sum), band.table, self._side, self._side)
        # a place without a window weighs nothing, but what was there before may be no number
        self._table = self._sum.new_empty(shape) if band.computed is None else self._sum.new_zeros(shape)

    def hold(self, places: Tensor, probability: Tensor) -> None:
        """Keep windows: `places` (B,) in the band's table, `probability` (B, P, s, s) float32."""
        self._table.index_copy_(1, places, probability.transpose(0, 1))

    def take_over(self, band: Band, probability: Tensor) -> None:
        """Keep those of the windows (P, N, s, s) of earlier blocks that belong to the band."""
        if band.taken is not None:
            numbers, places = band.taken
            self._table.index_copy_(1, places, probability.index_select(1, numbers))

    def left(self, band: Band) -> Tensor | None:
        """(P, n, s, s), the held windows that are left to later blocks; None = none."""
        return None if band.kept is None else self._table.index_select(1, band.kept)

    def fold(self, band: Band, rows: slice) -> None:
        """Add the held windows to some of the rows that the band covers; strips of rows may be folded at a time."""
        part = slice(band.first + rows.start, band.first + rows.stop)
        total, squares = self._sum[:, part], self._sum_of_squares[:, part]
        weights, windows = self._sum_of_weights[part], self._windows[part]
        table = self._table.flatten(1)
        across = band.columns.ranks()
        for index_y, weight_y, window_y in band.rows.ranks(rows):
            for index_x, weight_x, window_x in across:
                index, weight = index_y + index_x, weight_y * weight_x
                if band.computed is not None:
                    weight *= band.computed[window_y, window_x]
                probability = table.index_select(1, index.flatten()).unflatten(1, index.shape)
                weighted = weight * probability
                total += weighted
                squares += weighted.mul_(probability)
                weights += weight
                windows += weight > 0

    def settle(self, valid: Tensor, rows: slice) -> None:
        """Turn the sums of some rows into levels; `valid` (P, rows, w) bool, True = valid in both dates."""
        total, squares, weights = self._sum[:, rows], self._sum_of_squares[:, rows], self._sum_of_weights[rows]
        mean = total / weights
        level = torch.where(valid, level_of(mean), NODATA)
        self._stored[:, rows] = level
        variance = squares / weights - mean * mean
        bins = (variance.clamp(min=0).sqrt() * DISAGREEMENT_SCALE).round().clamp(max=DISAGREEMENT_BINS - 1)
        compared = valid & (self._windows[rows] > 1) & torch.isfinite(bins)
        # one bin more takes what is not compared; counted row by row, so that a GPU's counters seldom meet
        bins = torch.where(compared, bins, DISAGREEMENT_BINS).to(torch.int64).transpose(0, 1).flatten(1)
        self._histogram[rows].scatter_add_(1, bins, self._histogram.new_ones(()).expand_as(bins))
        self._finite[rows] = torch.isfinite(level).all(dim=2).all(dim=0)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """What was settled, on the device: (P, h, w) uint8, 255 where not valid; the histogram (256,) int64, as
        tiling.protocols documents it; and whether every valid pixel had a finite probability: else the network returned
        NaN or infinity, or no window covers a pixel."""
        return self._stored, self._histogram[:, :DISAGREEMENT_BINS].sum(dim=0), self._finite.all()

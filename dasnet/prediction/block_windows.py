"""Windows of one block: which are computed, where each lies in a buffer, which of them cover a row or a column.

Integer geometry on the host, done once a block, so that a device is told of all windows at a time.

Legend of shapes: R rows and C columns of windows, (H, W) the block with its halo.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dasnet.errors import PredictorError
from dasnet.prediction.left_windows import LeftWindows, among


@dataclass(frozen=True, kw_only=True, eq=False)
class Covering:
    """Windows along one axis that cover each pixel, in ascending order: K of n pixels.

    Attributes:
        window: (K, n) int64, number of the window; where a pixel has fewer than K, any number.
        offset: (K, n) int64, the pixel within that window.
        weight: (K, n) float32, taper at the pixel; 0 = there is no such window.
    """

    window: NDArray[np.int64]
    offset: NDArray[np.int64]
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, starts: NDArray[np.int64], *, taper: NDArray[np.float32], pixels: slice) -> Covering:
        """Windows from `starts`, ascending, as long as `taper`, over a range of pixels."""
        positions = np.arange(pixels.start, pixels.stop)
        first = np.searchsorted(starts, positions - len(taper), side="right")
        count = np.searchsorted(starts, positions, side="right") - first
        rank = np.arange(max(int(count.max(initial=0)), 1))[:, None]
        there = rank < count
        # what stands in for a missing window is one of the pixel's own, so that no other pixel's value has a part in it
        window = np.minimum(first + np.where(there, rank, 0), len(starts) - 1)
        offset = np.clip(positions - starts[window], 0, len(taper) - 1)
        return cls(window=window, offset=offset, weight=np.where(there, taper[offset], np.float32(0)))


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockWindows:
    """Windows of a block as places in a table of rows and columns; they are added row by row.

    Attributes:
        side: pixels of a window.
        starts_y, starts_x: (R,) and (C,) int64, ascending, first pixel of each row and column of windows.
        computed: (R, C), True = the window has a probability: it goes through the network, or an earlier block left it.
        taken: (R, C) int64, its number among those that an earlier block left; -1 = it goes through the network.
        kept: (R, C), True = it is left to a later block.
    """

    side: int
    starts_y: NDArray[np.int64]
    starts_x: NDArray[np.int64]
    computed: NDArray[np.bool_]
    taken: NDArray[np.int64]
    kept: NDArray[np.bool_]

    @classmethod
    def of(cls, origins: NDArray[np.int64], *, side: int, valid: NDArray[np.bool_]) -> BlockWindows:
        """Windows that hold a valid pixel.

        Args:
            origins: (N, 2) upper-left corners (y, x), in any order.
            side: pixels of a window.
            valid: (H, W), True = a pixel counts.

        Raises:
            PredictorError: a corner occurs twice, or a window does not lie in the block.
        """
        if not len(origins):
            none, nowhere = np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=bool)
            return cls(
                side=side,
                starts_y=none,
                starts_x=none,
                computed=nowhere,
                taken=np.empty((0, 0), dtype=np.int64),
                kept=nowhere,
            )
        if origins.min() < 0 or (origins.max(axis=0) + side > valid.shape).any():
            raise PredictorError(f"windows of {side} px at {origins.tolist()} do not lie in {valid.shape} px")
        starts_y, row = np.unique(origins[:, 0], return_inverse=True)
        starts_x, column = np.unique(origins[:, 1], return_inverse=True)
        given = np.zeros((len(starts_y), len(starts_x)), dtype=bool)
        given[row, column] = True
        if given.sum() != len(origins):
            raise PredictorError(f"{len(origins)} windows stand at {given.sum()} places: each may be given once")
        return cls(
            side=side,
            starts_y=starts_y,
            starts_x=starts_x,
            computed=given & _any_within(valid, starts_y, starts_x, side),
            taken=np.full(given.shape, -1, dtype=np.int64),
            kept=np.zeros_like(given),
        )

    def between(self, *, corner: tuple[int, int], before: LeftWindows | None, leave: NDArray[np.int64]) -> BlockWindows:
        """The same windows, some of them taken over from earlier blocks and some left to later ones.

        Args:
            corner: row and column of the grid at which the block with its halo begins.
            before: what earlier blocks left.
            leave: (N, 2) corners (y, x) in the grid of windows that later blocks touch.
        """
        corners = self._corners + corner
        shape = self.computed.shape
        taken = self.taken if before is None else before.numbers(corners).reshape(shape)
        return replace(
            self,
            taken=np.where(self.computed, taken, -1),
            kept=self.computed & among(corners, leave).reshape(shape),
        )

    def passed(self, before: LeftWindows, *, corner: tuple[int, int], leave: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers (N,) of the windows of earlier blocks that are none of this block's, but of a later one; arguments as
        those of :meth:`between`."""
        ours = self._corners[self.computed.ravel()] + corner
        return np.flatnonzero(among(before.corners, leave) & ~among(before.corners, ours))

    @property
    def _corners(self) -> NDArray[np.int64]:
        """(R · C, 2), y before x, of every place for a window."""
        return np.stack(np.meshgrid(self.starts_y, self.starts_x, indexing="ij"), axis=-1).reshape(-1, 2)

    def __len__(self) -> int:
        """Windows that go through the network."""
        return int(self._fresh.sum())

    @property
    def _fresh(self) -> NDArray[np.bool_]:
        return self.computed & (self.taken < 0)

    def bands(self, most: int) -> Iterator[slice]:
        """Rows of windows in order, so many at a time that their table has at most `most` places, or one row."""
        rows, columns = self.computed.shape
        step = max(most // max(columns, 1), 1)
        return (slice(first, min(first + step, rows)) for first in range(0, rows, step))

    def places(self, band: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Windows of some rows that go through the network, row by row: corners (N, 2), y before x, and places (N,) in
        their table."""
        return self._where(self._fresh, band)

    def places_kept(self, band: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same of windows that are left to later blocks."""
        return self._where(self.kept, band)

    def places_taken(self, band: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers (N,) of what is taken over in some rows, and places (N,) in their table."""
        taken = self.taken[band]
        return taken[taken >= 0], np.flatnonzero(taken >= 0)

    def _where(self, chosen: NDArray[np.bool_], band: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        row, column = np.nonzero(chosen[band])
        corners = np.stack([self.starts_y[band][row], self.starts_x[column]], axis=1)
        return corners, row * len(self.starts_x) + column


def _any_within(
    valid: NDArray[np.bool_], starts_y: NDArray[np.int64], starts_x: NDArray[np.int64], side: int
) -> NDArray[np.bool_]:
    """(R, C) whether each window has a True pixel: every pixel is looked at once, however many windows cover it."""
    edges_y, edges_x = (np.unique(np.concatenate([starts, starts + side])) for starts in (starts_y, starts_x))
    part = valid[edges_y[0] : edges_y[-1], edges_x[0] : edges_x[-1]]
    parts = np.logical_or.reduceat(part, edges_y[:-1] - edges_y[0], axis=0)
    parts = np.logical_or.reduceat(parts, edges_x[:-1] - edges_x[0], axis=1)
    before = np.pad(parts.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    (y0, y1), (x0, x1) = (
        (np.searchsorted(edges, starts), np.searchsorted(edges, starts + side))
        for edges, starts in ((edges_y, starts_y), (edges_x, starts_x))
    )
    counted = before[np.ix_(y1, x1)] - before[np.ix_(y0, x1)] - before[np.ix_(y1, x0)] + before[np.ix_(y0, x0)]
    return np.asarray(counted > 0)

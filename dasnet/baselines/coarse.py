"""A pair at a coarser resolution, and how much of it differs: what a first pass looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FACTOR = 4
"""Pixels along a coarse pixel: their means say where something large changed, and hardly see noise and small shifts."""
CELL = 128
"""Side of a cell in pixels of the grid: half a usual window, of which a cell brings up to four along."""
SHARE_SEEN = 0.05
"""Share of a cell's coarse pixels that differ by its statistic or more: a few wild pixels shall not choose a cell, and
a building shall."""


def block_means(
    before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_], factor: int = FACTOR
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Means of both dates over blocks of `factor` × `factor` pixels, of the pixels that are valid in both.

    Args:
        before, after: (C, h, w); the last blocks of rows and columns may be cut off by the edge.
        valid: (h, w), True = there in both dates.

    Returns:
        before and after (C, ⌈h / factor⌉, ⌈w / factor⌉) and whether any pixel of the block is valid. Pixels are added
        in one order whatever the array's size.
    """
    height, width = valid.shape
    margin = ((0, -height % factor), (0, -width % factor))
    counted = np.pad(valid, margin)
    places = [(y, x) for y in range(factor) for x in range(factor)]
    number = sum((counted[y::factor, x::factor].astype(np.int64) for y, x in places), start=np.int64(0))
    means = []
    for image in (before, after):
        padded = np.pad(image, ((0, 0), *margin))
        total = np.zeros((len(image), *np.shape(number)))
        for y, x in places:
            total += np.where(counted[y::factor, x::factor], padded[:, y::factor, x::factor], 0)
        means.append(total / np.maximum(number, 1))
    return means[0], means[1], np.asarray(number > 0)


def cell_statistics(statistic: NDArray[np.float64], valid: NDArray[np.bool_], *, side: int) -> NDArray[np.float64]:
    """What :data:`SHARE_SEEN` of the valid coarse pixels of each cell reach or exceed; NaN where none is valid.

    Args:
        statistic: (h, w) of coarse pixels; anything where not valid.
        side: of a cell in coarse pixels; cells begin at the upper-left corner.

    Returns:
        (⌈h / side⌉, ⌈w / side⌉).
    """
    height, width = statistic.shape
    rows, cols = -(-height // side), -(-width // side)
    result = np.full((rows, cols), np.nan)
    for row in range(rows):
        for col in range(cols):
            cell = (slice(row * side, (row + 1) * side), slice(col * side, (col + 1) * side))
            seen = statistic[cell][valid[cell]]
            if seen.size:
                place = seen.size - max(int(np.ceil(SHARE_SEEN * seen.size)), 1)
                result[row, col] = np.partition(seen, place)[place]
    return result

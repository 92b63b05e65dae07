"""The part of a grid that is worth a network: whole cells of a fixed lattice, so that no choice depends on blocks."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.conventions import LOWEST_COMPUTED, NODATA, PASSED_OVER
from tiling.grid import BlockGrid, Box, WindowLattice


@dataclass(frozen=True, kw_only=True)
class ChosenCells:
    """Cells that are computed, of a lattice from the grid's upper-left corner on.

    Attributes:
        lattice: the cells, numbered row by row; those at the right and lower edge may be smaller.
        bits: which of them are chosen, a bit each in that order, as :func:`numpy.packbits` has them.
    """

    lattice: BlockGrid
    bits: bytes

    @classmethod
    def of(cls, lattice: BlockGrid, chosen: NDArray[np.bool_]) -> ChosenCells:
        """`chosen`: (rows, columns) or flat, True = computed; ValueError for another number of cells."""
        if chosen.size != len(lattice):
            raise ValueError(f"{chosen.size} cells are no {lattice.rows} × {lattice.cols}")
        return cls(lattice=lattice, bits=np.packbits(chosen.ravel()).tobytes())

    @cached_property
    def cells(self) -> NDArray[np.bool_]:
        """(rows, columns), True = computed."""
        flat = np.unpackbits(np.frombuffer(self.bits, dtype=np.uint8), count=len(self.lattice))
        return flat.astype(bool).reshape(self.lattice.rows, self.lattice.cols)

    @cached_property
    def _before(self) -> NDArray[np.int64]:
        """(rows + 1, columns + 1): chosen cells above and left of a corner."""
        return np.pad(self.cells.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))

    def touched_by(self, origins: NDArray[np.int64], window: int) -> NDArray[np.bool_]:
        """(N,) whether windows with these upper-left corners (N, 2), y before x, share a pixel with a chosen cell."""
        size, shape = self.lattice.size, np.array(self.cells.shape)
        first = np.clip(origins // size, 0, shape)
        last = np.clip(-(-(origins + window) // size), 0, shape)
        (y0, x0), (y1, x1) = first.T, last.T
        counted = self._before
        return np.asarray(counted[y1, x1] - counted[y0, x1] - counted[y1, x0] + counted[y0, x0] > 0)

    def part_of(
        self, lattice: WindowLattice, block: Box, *, within: Box
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The windows of a block that are computed, and where these are all windows that there are.

        A chosen cell brings every window that touches it. Wherever no other window lies, the probability is that of a
        run that computes everything: that is more than the cell, at no further cost, and does not depend on the block.

        Args:
            block: whose windows.
            within: what the mask covers: the block with its halo.

        Returns:
            upper-left corners (N, 2), y before x, in pixels of the grid; and (h, w) of `within`, which counts inside of
            the block alone.
        """
        origins = lattice.origins_touching(block)
        touched = self.touched_by(origins, lattice.window)
        whole = np.ones((within.height, within.width), dtype=bool)
        for y, x in origins[~touched] - (within.y0, within.x0):
            whole[y : y + lattice.window, x : x + lattice.window] = False
        return origins[touched], whole

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        grid = self.lattice
        return {
            "height": grid.height,
            "width": grid.width,
            "cell": grid.size,
            "chosen": base64.b64encode(self.bits).decode(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ChosenCells:
        """What :meth:`to_dict` made; ValueError or KeyError where it is damaged."""
        lattice = BlockGrid(height=stored["height"], width=stored["width"], size=stored["cell"])
        bits = base64.b64decode(stored["chosen"], validate=True)
        if len(bits) != -(-len(lattice) // 8):
            raise ValueError(f"{len(bits)} bytes are no {len(lattice)} bits")
        return cls(lattice=lattice, bits=bits)


def with_passed_over(
    probability: NDArray[np.uint8], *, valid: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Levels (P, h, w) as a run with a first pass stores them.

    Args:
        probability: of a predictor; what it makes of pixels outside of `chosen` does not count.
        valid: (P, h, w), True = there in both dates of a pair.
        chosen: (h, w), True = computed by all its windows.
    """
    computed = np.where(probability == NODATA, np.uint8(NODATA), np.maximum(probability, np.uint8(LOWEST_COMPUTED)))
    over = np.where(valid, np.uint8(PASSED_OVER), np.uint8(NODATA))
    return np.where(chosen, computed, over).astype(np.uint8)

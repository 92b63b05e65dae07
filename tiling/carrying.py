"""What a worker carries from one block of a chain to the next, so that it computes no window twice.

A *chain* is blocks that lie together and are computed one after another by one worker. Which blocks make one changes no
byte: a window that is not carried is computed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.grid import BlockGrid, WindowLattice

CHAIN_SIDE = 4
"""Blocks along one side of a chain at most: 1.06 times the windows of the lattice where windows of 256 px share 64 and
blocks have 2048 px."""

_BITS = (CHAIN_SIDE - 1).bit_length()


def chain_of(block: int, blocks: BlockGrid) -> int:
    """Which square of blocks a block lies in, row by row from 0 on."""
    row, col = divmod(block, blocks.cols)
    return row // CHAIN_SIDE * -(-blocks.cols // CHAIN_SIDE) + col // CHAIN_SIDE


def place_in_chain(block: int, blocks: BlockGrid) -> int:
    """Where in the order of its square a block comes: quarter by quarter, so that a half of the order is a half of the
    square, and a quarter a quarter."""
    row, col = divmod(block, blocks.cols)
    return sum((row >> bit & 1) << 2 * bit + 1 | (col >> bit & 1) << 2 * bit for bit in range(_BITS))


def chain_order(blocks: BlockGrid) -> Iterator[int]:
    """Every block's index, chain after chain."""
    for row in range(0, blocks.rows, CHAIN_SIDE):
        for col in range(0, blocks.cols, CHAIN_SIDE):
            inside = [
                y * blocks.cols + x
                for y in range(row, min(row + CHAIN_SIDE, blocks.rows))
                for x in range(col, min(col + CHAIN_SIDE, blocks.cols))
            ]
            yield from sorted(inside, key=lambda block: place_in_chain(block, blocks))


def windows_of(indices: Sequence[int], *, blocks: BlockGrid, lattice: WindowLattice) -> NDArray[np.int64]:
    """Upper-left corners (N, 2), y before x, of the windows that touch any of some blocks."""
    touching = [lattice.origins_touching(blocks[index].box) for index in indices]
    return np.unique(np.concatenate([np.empty((0, 2), dtype=np.int64), *touching]), axis=0)


class Luggage:
    """What is carried of each chain that a worker is in the middle of; threads share it.

    A chain of which a worker never sees the end, because its rest went to another one, is let go of when `most` younger
    ones are there.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_chain: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._by_chain)

    def of(self, chain: str) -> Any:
        """What the last block of a chain left; None = nothing."""
        with self._lock:
            return self._by_chain.get(chain)

    def leave(self, chain: str, left: Any) -> None:
        """Keep what a block left, in the place of what the one before it did; None = nothing."""
        with self._lock:
            self._by_chain.pop(chain, None)
            if left is not None:
                self._by_chain[chain] = left
            while len(self._by_chain) > self._most:
                self._by_chain.popitem(last=False)

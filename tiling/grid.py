"""Blocks and windows of a grid: integer geometry, no I/O.

A *block* is one unit of distributed work and one output shard. A *window* is what the network sees. Windows stand on
one lattice over the whole grid, so which windows cover a pixel does not depend on how the grid is cut into blocks.

All boxes are half-open pixel ranges, row (y) before column (x), origin at the grid's upper-left corner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Half-open pixel range: rows ``y0 <= y < y1``, columns ``x0 <= x < x1``. May reach beyond the grid."""

    y0: int
    y1: int
    x0: int
    x1: int

    def __post_init__(self) -> None:
        if self.y1 <= self.y0 or self.x1 <= self.x0:
            raise ValueError(f"empty box: rows {self.y0}..{self.y1}, columns {self.x0}..{self.x1}")

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def area(self) -> int:
        """Pixels in the box."""
        return self.height * self.width

    @property
    def rows(self) -> slice:
        return slice(self.y0, self.y1)

    @property
    def cols(self) -> slice:
        return slice(self.x0, self.x1)

    def intersects(self, other: Box) -> bool:
        return self.y0 < other.y1 and other.y0 < self.y1 and self.x0 < other.x1 and other.x0 < self.x1

    def relative_to(self, origin: Box) -> Box:
        """The same pixels counted from the upper-left corner of `origin`."""
        return Box(y0=self.y0 - origin.y0, y1=self.y1 - origin.y0, x0=self.x0 - origin.x0, x1=self.x1 - origin.x0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One unit of distributed work: `box` lies inside the grid; blocks at the right and lower edge may be smaller."""

    index: int
    row: int
    col: int
    box: Box

    @property
    def name(self) -> str:
        """Stable name in ledger, logs and tables, for example ``r00003c00012``."""
        return f"r{self.row:05d}c{self.col:05d}"


@dataclass(frozen=True, kw_only=True)
class BlockGrid:
    """The blocks of a grid of `height` × `width` pixels, `size` pixels a side, numbered row by row."""

    height: int
    width: int
    size: int

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.size) < 1:
            raise ValueError(f"a grid of {self.height}×{self.width} px in blocks of {self.size} px is empty")

    @property
    def rows(self) -> int:
        return -(-self.height // self.size)

    @property
    def cols(self) -> int:
        return -(-self.width // self.size)

    def __len__(self) -> int:
        return self.rows * self.cols

    def __getitem__(self, index: int) -> Block:
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        row, col = divmod(index, self.cols)
        y0, x0 = row * self.size, col * self.size
        box = Box(y0=y0, y1=min(y0 + self.size, self.height), x0=x0, x1=min(x0 + self.size, self.width))
        return Block(index=index, row=row, col=col, box=box)

    def named(self, name: str) -> Block:
        """The block whose :attr:`Block.name` is `name`; ValueError for a name of another form or beyond the grid."""
        match = re.fullmatch(r"r(\d+)c(\d+)", name)
        if match is None or int(match[1]) >= self.rows or int(match[2]) >= self.cols:
            raise ValueError(f"no block {name!r} among {self.rows} rows and {self.cols} columns of blocks")
        return self[int(match[1]) * self.cols + int(match[2])]

    def __iter__(self) -> Iterator[Block]:
        return (self[index] for index in range(len(self)))

    def touching(self, box: Box) -> list[Block]:
        """All blocks that share a pixel with `box`, row by row."""
        rows = range(max(box.y0, 0) // self.size, -(-min(box.y1, self.height) // self.size))
        cols = range(max(box.x0, 0) // self.size, -(-min(box.x1, self.width) // self.size))
        return [self[row * self.cols + col] for row in rows for col in cols]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A part of a region that is a run of its own: whole blocks, `blocks` their indices."""

    name: str
    box: Box
    blocks: tuple[int, ...]


def cells_of(blocks: BlockGrid, side: int) -> tuple[Cell, ...]:
    """Cut a region into cells of at most `side` × `side` blocks, row by row; every block is in exactly one."""
    if side < 1:
        raise ValueError(f"a cell of {side} blocks is empty")
    cells = []
    for row in range(0, blocks.rows, side):
        for col in range(0, blocks.cols, side):
            y0, x0 = row * blocks.size, col * blocks.size
            box = Box(
                y0=y0,
                y1=min(y0 + side * blocks.size, blocks.height),
                x0=x0,
                x1=min(x0 + side * blocks.size, blocks.width),
            )
            inside = tuple(block.index for block in blocks.touching(box))
            cells.append(Cell(name=f"cell-r{row // side:03d}c{col // side:03d}", box=box, blocks=inside))
    return tuple(cells)


@dataclass(frozen=True, kw_only=True)
class WindowLattice:
    """Square windows of `window` pixels over a grid, neighbours sharing at least `overlap` pixels.

    The first window of an axis starts at 0 and the last one ends at the grid's edge (it is moved inwards, so it may
    share more than `overlap`). Only where the grid is smaller than one window does the window reach beyond the grid.
    """

    height: int
    width: int
    window: int
    overlap: int

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.window) < 1:
            raise ValueError(f"a grid of {self.height}×{self.width} px has no window of {self.window} px")
        if not 0 <= self.overlap < self.window:
            raise ValueError(f"overlap {self.overlap} px must be 0 or more and less than the window, {self.window} px")

    @property
    def stride(self) -> int:
        return self.window - self.overlap

    def _starts(self, length: int) -> NDArray[np.int64]:
        last = max(length - self.window, 0)
        regular = np.arange(0, last, self.stride, dtype=np.int64)
        return np.append(regular, last)

    @cached_property
    def starts_y(self) -> NDArray[np.int64]:
        """First row of each row of windows, ascending."""
        return self._starts(self.height)

    @cached_property
    def starts_x(self) -> NDArray[np.int64]:
        """First column of each column of windows, ascending."""
        return self._starts(self.width)

    def __len__(self) -> int:
        return len(self.starts_y) * len(self.starts_x)

    def origins_touching(self, box: Box) -> NDArray[np.int64]:
        """Upper-left corners (y, x) of all windows that share a pixel with `box`: (N, 2), in row-major order."""

        def touching(starts: NDArray[np.int64], lower: int, upper: int) -> NDArray[np.int64]:
            return starts[(starts < upper) & (starts + self.window > lower)]

        ys, xs = touching(self.starts_y, box.y0, box.y1), touching(self.starts_x, box.x0, box.x1)
        return np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 2)

    def read_box(self, box: Box) -> Box:
        """What must be read to compute every window that touches `box`: `box` with its halo."""
        origins = self.origins_touching(box)
        (y0, x0), (y1, x1) = origins.min(axis=0), origins.max(axis=0) + self.window
        return Box(y0=int(y0), y1=int(y1), x0=int(x0), x1=int(x1))

    @cached_property
    def taper(self) -> NDArray[np.float32]:
        """Blending weight along one axis of a window: (window,), in (0, 1]; the weight of a pixel is the outer product.

        A raised cosine over the shared pixels, so that two regular neighbours sum to one and the mosaic has no seam.
        """
        weight = np.ones(self.window, dtype=np.float64)
        if self.overlap:
            ramp_length = min(self.overlap, self.window // 2)
            ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp_length) + 0.5) / ramp_length)
            weight[:ramp_length] = ramp
            weight[-ramp_length:] = ramp[::-1]
        return weight.astype(np.float32)

"""Plates: the units in which products are made, on a lattice of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PLATE = 2048
"""Side of a plate in pixels. It does not follow the blocks, so that a product has the same bytes whatever the cut."""


@dataclass(frozen=True, kw_only=True)
class Plate:
    """One plate.

    Attributes:
        number: row by row, from 0.
        row, col: its place among the plates.
        rows, cols: its pixels in the grid.
    """

    number: int
    row: int
    col: int
    rows: slice
    cols: slice

    @property
    def name(self) -> str:
        return f"r{self.row:05}c{self.col:05}"

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.rows.stop - self.rows.start, self.cols.stop - self.cols.start


@dataclass(frozen=True, kw_only=True)
class Plates:
    """The plates of a grid of `height` × `width` pixels, `size` pixels a side, numbered row by row."""

    height: int
    width: int
    size: int = PLATE

    @property
    def down(self) -> int:
        """Rows of plates."""
        return -(-self.height // self.size)

    @property
    def across(self) -> int:
        """Plates in a row."""
        return -(-self.width // self.size)

    def __len__(self) -> int:
        return self.down * self.across

    def __getitem__(self, number: int) -> Plate:
        if not 0 <= number < len(self):
            raise IndexError(f"plate {number} of {len(self)}")
        row, col = divmod(number, self.across)
        y, x = row * self.size, col * self.size
        rows, cols = slice(y, min(y + self.size, self.height)), slice(x, min(x + self.size, self.width))
        return Plate(number=number, row=row, col=col, rows=rows, cols=cols)

    def __iter__(self) -> Iterator[Plate]:
        return (self[number] for number in range(len(self)))

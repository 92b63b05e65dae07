"""The layout of a COG: its levels, and which tiles of them lie in which plate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from storage.products.plates import Plate, Plates

TILE = 512
"""Side of a tile in pixels, at every level."""


@dataclass(frozen=True, kw_only=True)
class CogLayout:
    """How an image is cut into levels, plates and tiles. Level 0 has all pixels, each further one half as many a side.

    Levels go on until both sides fit into one tile. A plate holds whole tiles of the first :attr:`inner` levels; of
    the next one it holds less than a tile, so that tiles from there on are made of several plates.

    Raises:
        ValueError: a tile is no multiple of 16 px, as TIFF wants it, or a plate no power of two of tiles a side.
    """

    plates: Plates
    tile: int = TILE

    def __post_init__(self) -> None:
        tiles, rest = divmod(self.plates.size, self.tile)
        if self.tile < 16 or self.tile % 16:
            raise ValueError(f"tiles of {self.tile} px: the side of a TIFF's tile is a multiple of 16")
        if rest or tiles & (tiles - 1):
            raise ValueError(f"plates of {self.plates.size} px are no power of two of tiles of {self.tile} px")

    @property
    def inner(self) -> int:
        """Levels whose tiles lie each in one plate."""
        return (self.plates.size // self.tile).bit_length()

    @cached_property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level, pixels."""
        height, width = self.plates.height, self.plates.width
        sizes = [(height, width)]
        while max(height, width) > self.tile:
            height, width = -(-height // 2), -(-width // 2)
            sizes.append((height, width))
        return tuple(sizes)

    def tiles(self, level: int) -> tuple[int, int]:
        """Rows and columns of tiles of a level."""
        height, width = self.levels[level]
        return -(-height // self.tile), -(-width // self.tile)

    def shape_in(self, plate: Plate, level: int) -> tuple[int, int]:
        """(height, width) of a plate at a level, pixels; also of levels that the file does not need."""
        height, width = plate.shape
        return -(-height // 2**level), -(-width // 2**level)

    def tiles_in(self, plate: Plate, level: int) -> tuple[slice, slice]:
        """Rows and columns of the tiles of a plate among those of an inner level."""
        a_plate = self.plates.size // 2**level // self.tile
        height, width = self.shape_in(plate, level)
        y, x = plate.row * a_plate, plate.col * a_plate
        return slice(y, y - (-height // self.tile)), slice(x, x - (-width // self.tile))

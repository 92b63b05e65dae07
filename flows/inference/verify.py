"""Blocks compared with the ledger as they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.errors import IntegrityError
from storage.products.reader import ProbabilityReader, pixels_sha256, strips
from tiling.grid import BlockGrid, Box


@dataclass(frozen=True, kw_only=True)
class StoredBlock:
    """A block of a pair as its worker wrote it; `rows`, `cols`: where, in the part that products are made of."""

    name: str
    rows: slice
    cols: slice
    sha256: str


REASON = "digest of the stored block differs from the ledger's"


class BlockVerifier:
    """Compares each block of a pair that a product reads with the digest that its worker reported.

    A block whose bytes are others is set back, and the run, or the cell, ends naming it.
    """

    def __init__(
        self,
        blocks: BlockGrid,
        part: Box,
        *,
        expected: Callable[[str], str],
        set_back: Callable[[list[str]], None],
        what: str = "",
    ) -> None:
        """`part`: what products are made of, whole blocks; `expected`: digest by block; `what`: begins messages."""
        self._blocks, self._part, self._what = blocks, part, what
        self._expected, self._set_back = expected, set_back
        self._wrong: list[str] = []

    def __call__(self, rows: slice, cols: slice, pixels: NDArray[np.uint8] | None) -> None:
        """Compare one block of the part; `pixels`: (h, w) uint8, None = it could not be read."""
        size = self._blocks.size
        row, column = (rows.start + self._part.y0) // size, (cols.start + self._part.x0) // size
        block = self._blocks[row * self._blocks.cols + column]
        if pixels is None or pixels_sha256(pixels) != self._expected(block.name):
            self._wrong.append(block.name)

    def stored(self, *, rows: slice, cols: slice) -> list[StoredBlock]:
        """The blocks that have a pixel in a range of the part, which may reach beyond it."""
        y, x = self._part.y0, self._part.x0
        box = Box(
            y0=max(rows.start + y, y),
            y1=min(rows.stop + y, self._part.y1),
            x0=max(cols.start + x, x),
            x1=min(cols.stop + x, self._part.x1),
        )
        return [
            StoredBlock(
                name=block.name,
                rows=slice(block.box.y0 - y, block.box.y1 - y),
                cols=slice(block.box.x0 - x, block.box.x1 - x),
                sha256=self._expected(block.name),
            )
            for block in self._blocks.touching(box)
        ]

    def found_wrong(self, names: Iterable[str]) -> None:
        """Whoever has read blocks elsewhere says which are not what the ledger says."""
        self._wrong += [name for name in names if name not in self._wrong]

    def look(self, reader: ProbabilityReader) -> None:
        """Read all blocks of the part, for :meth:`conclude`."""
        for _ in strips(reader, check=self):
            pass

    def conclude(self) -> None:
        """Raises IntegrityError if any block was not what the ledger says."""
        if self._wrong:
            self._set_back(self._wrong)
            raise IntegrityError(
                f"{self._what}{len(self._wrong)} blocks are not what their workers wrote "
                f"({', '.join(self._wrong[:10])}): storage lost or changed bytes. They are set back; run the same "
                "command again to compute them anew"
            )


def conclude_all(verifiers: Iterable[BlockVerifier]) -> None:
    """Conclude for all pairs, so that one that is wrong does not hide another; raises one IntegrityError for all."""
    errors = []
    for verifier in verifiers:
        try:
            verifier.conclude()
        except IntegrityError as error:
            errors.append(str(error))
    if errors:
        raise IntegrityError("\n".join(errors))

"""Blocks compared with the ledger as they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from storage.errors import IntegrityError
from storage.products.reader import ProbabilityReader, strips
from tiling.grid import BlockGrid, Box

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
        if pixels is None or hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest() != self._expected(
            block.name
        ):
            self._wrong.append(block.name)

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

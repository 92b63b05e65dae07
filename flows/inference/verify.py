"""Blocks compared with the ledger as they are read."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from flows.detect.job import Job
from storage.errors import IntegrityError
from tiling.ledger import Ledger


class BlockVerifier:
    """Compares each block that a product reads with the digest that the ledger has of it.

    A block whose bytes are not those that its worker wrote is set back to pending, and the run ends naming it.
    """

    def __init__(self, job: Job, ledger: Ledger) -> None:
        self._job, self._ledger = job, ledger
        self._wrong: list[str] = []

    def __call__(self, rows: slice, cols: slice, pixels: NDArray[np.uint8] | None) -> None:
        size = self._job.blocks.size
        block = self._job.blocks[(rows.start // size) * self._job.blocks.cols + cols.start // size]
        expected = self._ledger.entry(block.name).facts["digest"]
        if pixels is None or hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest() != expected:
            self._wrong.append(block.name)

    def conclude(self) -> None:
        """Raises IntegrityError if any block was not what the ledger says."""
        if self._wrong:
            self._ledger.forget(self._wrong, reason="digest of the stored block differs from the ledger's")
            raise IntegrityError(
                f"{len(self._wrong)} blocks are not what their workers wrote ({', '.join(self._wrong[:10])}): storage "
                "lost or changed bytes. They are set back; run the same command again to compute them anew"
            )

"""Which products stand, and what they were made of; blocks compared with the ledger as they are read."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
from numpy.typing import NDArray

from flows.run.directory import RunDirectory
from storage.errors import IntegrityError
from storage.places.bucket import Location, P
from storage.places.publish import write_json_atomically
from tiling.ledger import Ledger

if TYPE_CHECKING:  # `dasnet status` reads this module, and has no time for torch
    from flows.detect.job import Job

PRODUCTS = {
    "probability": "change_probability.tif",
    "changes": "changes.parquet",
    "quicklook": "quicklook.png",
    "report": "report.html",
    "item": "item.json",
}


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


@dataclass(frozen=True, kw_only=True)
class BlockStatistics:
    """Sums over the blocks of a run, from its ledger: windows, seconds, and how far windows disagree."""

    windows: int
    skipped_blocks: int
    seconds: dict[str, float]
    disagreement: NDArray[np.int64]

    @classmethod
    def of(cls, ledger: Ledger) -> BlockStatistics:
        windows = skipped_blocks = 0
        seconds: Counter[str] = Counter()
        disagreement = np.zeros(256, dtype=np.int64)
        for entry in ledger.entries("done"):
            facts = entry.facts
            windows += facts["windows"]
            skipped_blocks += facts["windows"] == 0
            for name in ("read_s", "wait_s", "compute_s", "write_s"):
                seconds[name.removesuffix("_s")] += facts[name]
            for bin, count in facts["disagreement"].items():
                disagreement[int(bin)] += count
        return cls(
            windows=windows,
            skipped_blocks=skipped_blocks,
            seconds=dict(seconds),
            disagreement=disagreement,
        )


class ProductLedger(Generic[P]):
    """Which products are finished, with the parameters they were made from and their digests."""

    def __init__(self, directory: RunDirectory[P], names: Mapping[str, str] = PRODUCTS) -> None:
        """`names`: file name of each product."""
        self._directory, self._names = directory, names
        self._path = directory.products_ledger
        self._known: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def path(self, product: str) -> P:
        return self._directory.at(self._names[product])

    def facts(self, product: str) -> dict[str, Any]:
        return dict(self._known[product]["facts"])

    def digest(self, product: str) -> str:
        return str(self._known[product]["sha256"])

    def make(self, product: str, make: Callable[[P], dict[str, Any]], *, parameters: dict[str, Any]) -> dict[str, Any]:
        """Make a product unless it stands there already, made from the same `parameters` and with the same bytes.

        Args:
            make: writes the product to the path it is given, atomically; returns facts that JSON can hold.
        """
        known, path = self._known.get(product), self.path(product)
        if known and known["parameters"] == parameters and path.exists() and sha256_of(path) == known["sha256"]:
            return dict(known["facts"])
        self._directory.require_lock()
        started = time.perf_counter()
        facts = make(path)
        self._known[product] = {
            "parameters": parameters,
            "sha256": sha256_of(path),
            "seconds": round(time.perf_counter() - started, 3),
            "facts": facts,
        }
        write_json_atomically(self._path, self._known)
        return dict(facts)


def sha256_of(path: Location) -> str:
    """SHA-256 of a file, as hex."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            total.update(part)
    return total.hexdigest()

"""Which products stand, and what they were made of."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic

from flows.run.directory import RunDirectory
from storage.places.bucket import P
from storage.places.publish import sha256_of, write_json_atomically


class ProductLedger(Generic[P]):
    """Which products are finished, with the parameters they were made from and their digests."""

    def __init__(self, directory: RunDirectory[P], names: Mapping[str, str]) -> None:
        """`names`: file name of each product."""
        self._directory, self._names = directory, names
        self._path = directory.products_ledger
        self._entries: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}

    @property
    def names(self) -> Sequence[str]:
        """All products."""
        return tuple(self._names)

    def path(self, product: str) -> P:
        return self._directory.at(self._names[product])

    def has(self, product: str) -> bool:
        """Whether it was made, now or before."""
        return product in self._entries

    def digest(self, product: str) -> str:
        return str(self._entries[product]["sha256"])

    def make(
        self, product: str, make: Callable[[P], dict[str, Any] | None], *, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        """Make a product unless it stands already, made from the same `parameters` and with the same bytes.

        Args:
            make: writes the product to the path it is given, atomically; returns facts that JSON can hold, if any.

        Returns:
            The facts, from now or from when the product was made.
        """
        entry, path = self._entries.get(product), self.path(product)
        if entry and entry["parameters"] == parameters and path.exists() and sha256_of(path) == entry["sha256"]:
            return dict(entry["facts"])
        self._directory.require_lock()
        started = time.perf_counter()
        facts = make(path) or {}
        self._entries[product] = {
            "parameters": parameters,
            "sha256": sha256_of(path),
            "seconds": round(time.perf_counter() - started, 3),
            "facts": facts,
        }
        write_json_atomically(self._path, self._entries)
        return dict(facts)

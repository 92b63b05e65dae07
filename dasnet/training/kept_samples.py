"""Samples kept in memory once they are read, so that a store decompresses each of them once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasnet.samples import SampleSource, StoredSamples


@dataclass(frozen=True, kw_only=True)
class _Stored:
    before: NDArray[Any]
    after: NDArray[Any]
    valid: NDArray[np.bool_]
    label: NDArray[np.uint8]


_NAMES = ("before", "after", "valid", "label")


class KeptSamples:
    """A source that keeps what it has read, for all threads, as long as there is room.

    Args:
        memory: bytes of pixels that may be kept; samples that do not fit are read each time.
    """

    def __init__(self, source: SampleSource, *, memory: int) -> None:
        self._source, self._room = source, memory
        self._samples: dict[int, StoredSamples] = {}
        self._lock = threading.Lock()

    def indices(self, split: str) -> NDArray[np.int64]:
        """Samples of a split, ascending."""
        return self._source.indices(split)

    def read(self, indices: Sequence[int]) -> StoredSamples:
        """Samples in the order asked for; a single one is what is kept, and not to be written to."""
        samples = [self._one(int(index)) for index in indices]
        if len(samples) == 1:
            return samples[0]
        return _Stored(**{name: np.concatenate([getattr(sample, name) for sample in samples]) for name in _NAMES})

    def _one(self, index: int) -> StoredSamples:
        kept = self._samples.get(index)
        if kept is not None:
            return kept
        sample = self._source.read([index])
        size = sum(getattr(sample, name).nbytes for name in _NAMES)
        with self._lock:
            if index not in self._samples and size <= self._room:
                self._samples[index] = sample
                self._room -= size
        return sample

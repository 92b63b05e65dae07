"""Labelled samples, as training and scoring ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class StoredSamples(Protocol):
    """Samples as a store gives them: before, after (n, C, s, s); valid (n, 2, s, s); label (n, s, s)."""

    @property
    def before(self) -> NDArray[Any]: ...
    @property
    def after(self) -> NDArray[Any]: ...
    @property
    def valid(self) -> NDArray[np.bool_]: ...
    @property
    def label(self) -> NDArray[np.uint8]: ...


class SampleSource(Protocol):
    """A dataset; storage.datasets.store.DatasetStore is one."""

    def indices(self, split: str) -> NDArray[np.int64]:
        """Samples of a split, ascending."""
        ...

    def read(self, indices: Sequence[int]) -> StoredSamples:
        """Samples in the order asked for."""
        ...


class NamedSamples(SampleSource, Protocol):
    """A dataset that messages can name."""

    @property
    def path(self) -> object: ...

    @property
    def bands(self) -> tuple[str, ...]: ...

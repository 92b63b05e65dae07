"""The methods without training by name, and their statistics from pixels that one process can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dasnet.baselines.cva import Cva
from dasnet.baselines.embeddings import EMBEDDINGS, EmbeddingDistance
from dasnet.baselines.irmad import IRMAD
from dasnet.baselines.pca_kmeans import PcaKmeans
from dasnet.baselines.reweighted import ChiSquared, Threshold
from dasnet.baselines.sfa import ISFA, SFA
from dasnet.baselines.statistics import Names, total
from dasnet.baselines.untrained import State, UntrainedMethod
from dasnet.errors import PredictorError

UNTRAINED: dict[str, UntrainedMethod] = {method.name: method for method in (Cva(), PcaKmeans(), IRMAD, SFA, ISFA)}
"""By the name that a user gives; their mosaics are imagery."""

WITHOUT_TRAINING: dict[str, UntrainedMethod] = {**UNTRAINED, **EMBEDDINGS}
"""These, and those whose mosaics are embeddings."""

Sheet = tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]
"""before and after, (C, h, w) each, and where both are valid, (h, w)."""


def untrained_named(name: str, *, threshold: Threshold | None = None) -> UntrainedMethod:
    """One of :data:`WITHOUT_TRAINING`.

    Args:
        threshold: another than the method's usual one.

    Raises:
        KeyError: no such method.
        PredictorError: a method that cannot take this threshold.
    """
    method = WITHOUT_TRAINING[name]
    if threshold is None or (threshold == "otsu" and isinstance(method, Cva | EmbeddingDistance)):
        return method
    if isinstance(method, ChiSquared):
        return replace(method, threshold=threshold)
    own = "Otsu's" if isinstance(method, Cva | EmbeddingDistance) else "halfway between its two clusters"
    raise PredictorError(f"{name} knows no threshold {threshold!r}: its own is {own}")


def fit(method: UntrainedMethod, sheets: Callable[[], Iterable[Sheet]], names: Names) -> State:
    """All passes, one sheet after another in this process.

    Args:
        sheets: called once for every pass; gives the same sheets in the same order each time, one at least.

    Raises:
        DegenerateStatisticsError: the statistics say nothing; the message names bands and mosaics.
    """
    state = State()
    # more threads would add in another order
    with threadpool_limits(limits=1, user_api="blas"):
        while not state.finished:
            now = state
            state = method.advance(now, total(method.count(now, *sheet) for sheet in sheets()), names)
    return state

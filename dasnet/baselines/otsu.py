"""Otsu's threshold (1979) of sizes of change, from a histogram that many can count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dasnet.baselines.statistics import Names
from dasnet.errors import DegenerateStatisticsError

BINS = 4096
HIGHEST = 16.0
"""Sizes beyond are counted in the last bin: a few wild pixels shall not move the threshold of all others."""

PARAMETERS = {"bins": BINS, "highest": HIGHEST}


def histogram(squares: NDArray[np.float64]) -> NDArray[np.int64]:
    """(BINS,) int64 of sizes whose squares, 0 or more, are given, any shape."""
    index = np.minimum(np.sqrt(squares.ravel()) * (BINS / HIGHEST), BINS - 1).astype(np.int64)
    return np.bincount(index, minlength=BINS)


def cut(counts: NDArray[np.int64], names: Names) -> float:
    """The size from which on Otsu calls it changed, a bin's edge.

    Raises:
        DegenerateStatisticsError: all sizes are in one bin.
    """
    from skimage.filters import threshold_otsu  # slow to import, and a plan only names the method

    if np.count_nonzero(counts) < 2:
        raise one_class(names)
    below = int(threshold_otsu(hist=(counts, np.arange(BINS))))
    return (below + 1) * HIGHEST / BINS


def one_class(names: Names) -> DegenerateStatisticsError:
    """What is said where changed and unchanged cannot be told apart."""
    return DegenerateStatisticsError(
        f"the differences between {names.before} and {names.after} make one cluster, not two: nothing changed, or "
        "everything did alike"
    )

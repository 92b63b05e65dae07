"""Change vectors of the last axis of two dates: how far the bands of a pixel moved, and how well that tells change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from dasnet.metrics import Confusion
from tiling.conventions import IGNORED


class ChangeVectors:
    """The classical peer: magnitude of the change vector of standardised bands, cut at Otsu's threshold.

    Nothing is trained. Magnitudes are counted in bins first, so that one threshold is found for all of the data.
    """

    BINS = 2048
    HIGHEST = 24.0

    def __init__(self, std: Sequence[float]) -> None:
        """Args: std: deviation of each band, in the images' units."""
        self._std = np.asarray(std, dtype=np.float32)[:, None, None]

    def count(self, before: NDArray[Any], after: NDArray[Any], labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """(2, BINS): unchanged and changed pixels of one sample by magnitude; dates (C, s, s), labels (s, s)."""
        difference = (after.astype(np.float32) - before.astype(np.float32)) / self._std
        known = labels != IGNORED
        # the mean difference is season and sensor, no change
        centre = difference[:, known].mean(axis=1, keepdims=True)[:, :, None] if known.any() else 0.0
        magnitude = np.sqrt(np.square(difference - centre).sum(axis=0))
        index = np.minimum(magnitude[known] * (self.BINS / self.HIGHEST), self.BINS - 1).astype(np.int64)
        return np.bincount(index + self.BINS * labels[known].astype(np.int64), minlength=2 * self.BINS).reshape(2, -1)

    @classmethod
    def at_otsu(cls, counts: NDArray[np.int64]) -> Confusion:
        """The confusion of all samples' counts, (2, BINS), at Otsu's threshold of their magnitudes.

        Where all magnitudes are one, nothing is called changed.
        """
        unchanged, changed = counts
        total = counts.sum(axis=0)
        if np.count_nonzero(total) < 2:
            return Confusion(fn=int(changed.sum()), tn=int(unchanged.sum()))
        edge = threshold_otsu(hist=(total, np.arange(cls.BINS)))
        above = int(edge) + 1
        tp, fp = int(changed[above:].sum()), int(unchanged[above:].sum())
        return Confusion(tp=tp, fp=fp, fn=int(changed.sum()) - tp, tn=int(unchanged.sum()) - fp)

"""A detector behind the protocol of predictors: a block of a series in, its change probability out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from dasnet.baselines.detector import Detector, levels
from dasnet.errors import PredictorError
from dasnet.prediction.block_prediction import BlockPrediction
from tiling.conventions import DISAGREEMENT_BINS, NODATA


def arithmetic() -> dict[str, Any]:
    """What the bits of statistics depend on: equal descriptions promise equal bytes."""
    kernels = {library["architecture"] for library in threadpool_info() if library.get("internal_api") == "openblas"}
    return {
        "device": f"CPU, BLAS for {', '.join(sorted(kernels)) or 'any'}",
        "precision": "float64",
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


_STRIP = 1 << 18  # pixels at a time, so that float64 temporaries stay small beside the block


class UntrainedPredictor:
    """A method without training, its statistics known; a tiling.protocols.Predictor.

    Windows have no part in the result: a pixel is computed once, whatever windows cover it, so they never disagree.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def describe(self) -> Mapping[str, Any]:
        """The arithmetic."""
        return arithmetic()

    def predict(
        self,
        images: NDArray[Any],
        valid: NDArray[np.bool_],
        *,
        origins: NDArray[np.int64],
        taper: NDArray[np.float32],
        crop: tuple[slice, slice],
        pairs: Sequence[tuple[int, int]] | None = None,
        wanted: NDArray[np.bool_] | None = None,
    ) -> BlockPrediction:
        """Change probability of one block; arguments as of tiling.protocols.Predictor.

        Raises:
            PredictorError: a pair of other dates than those whose statistics these are.
            ArithmeticError: a valid pixel has no finite statistic.
        """
        if len(images) != 2 or (pairs is not None and list(pairs) != [(0, 1)]):
            raise PredictorError(f"statistics of one pair do not serve {len(images)} dates, pairs {pairs}")
        both = valid[0] & valid[1]
        asked = both if wanted is None else both & wanted
        size = len(taper)
        computed = sum(bool(both[y : y + size, x : x + size].any()) for y, x in origins)
        rows, cols = crop
        probability = np.full(both[rows, cols].shape, NODATA, dtype=np.uint8)
        step = max(_STRIP // max(cols.stop - cols.start, 1), 1)
        for first in range(rows.start, rows.stop, step):
            strip = slice(first, min(first + step, rows.stop))
            valid_here = asked[strip, cols]
            if valid_here.any():
                statistic = self._statistic(images, both, strip, cols)
                done = probability[strip.start - rows.start : strip.stop - rows.start]
                done[valid_here] = levels(statistic[valid_here], self._detector.threshold)
        return BlockPrediction(
            probability=probability[None],
            windows_computed=computed,
            windows_skipped=len(origins) - computed,
            disagreement=np.zeros(DISAGREEMENT_BINS, dtype=np.int64),
        )

    def _statistic(
        self, images: NDArray[Any], both: NDArray[np.bool_], rows: slice, cols: slice
    ) -> NDArray[np.float64]:
        """The statistic of a part of the block, from it and its halo."""
        halo = self._detector.halo
        top, left = max(rows.start - halo, 0), max(cols.start - halo, 0)
        wide = (slice(top, rows.stop + halo), slice(left, cols.stop + halo))
        statistic = self._detector.statistic(images[0][:, *wide], images[1][:, *wide], both[wide])
        return statistic[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]

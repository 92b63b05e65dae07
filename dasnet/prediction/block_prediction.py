"""What any method makes of a block: probabilities as they are stored, without the library that computed them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.conventions import DISAGREEMENT_BINS, NODATA


@dataclass(frozen=True, kw_only=True)
class BlockPrediction:
    """What the predictor makes of one block; the fields are those of tiling.protocols.Prediction.

    Attributes:
        probability: (P, h, w) uint8, change probability × 254 of each pair of dates; 255 = nodata.
        windows_computed: windows that went through the network.
        windows_skipped: windows without a pixel that is valid in both dates of any pair.
        disagreement: (256,) int64, histogram of the windows' standard deviation × 510 over valid pixels that more than
            one window covers.
        left: windows for later blocks, on the predictor's device; None = none.
    """

    probability: NDArray[np.uint8]
    windows_computed: int
    windows_skipped: int
    disagreement: NDArray[np.int64]
    left: Any = None

    @classmethod
    def without_windows(cls, shape: tuple[int, int, int], skipped: int, *, left: Any) -> BlockPrediction:
        """Nothing but nodata, (P, h, w): none of the block's windows has a valid pixel."""
        return cls(
            probability=np.full(shape, NODATA, dtype=np.uint8),
            windows_computed=0,
            windows_skipped=skipped,
            disagreement=np.zeros(DISAGREEMENT_BINS, dtype=np.int64),
            left=left,
        )

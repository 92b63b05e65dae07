"""What any method makes of a block: probabilities as they are stored, without the library that computed them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class BlockPrediction:
    """What the predictor makes of one block; the fields are those of tiling.protocols.Prediction.

    Attributes:
        probability: (P, h, w) uint8, change probability × 254 of each pair of dates; 255 = nodata.
        windows_computed: windows that went through the network.
        windows_skipped: windows without a pixel that is valid in both dates of any pair.
        disagreement: (256,) int64, histogram of the windows' standard deviation × 510 over valid pixels that more than
            one window covers.
    """

    probability: NDArray[np.uint8]
    windows_computed: int
    windows_skipped: int
    disagreement: NDArray[np.int64]

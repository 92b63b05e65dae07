"""Windows that one block leaves to later ones: their probabilities stay on the device, so that none is computed twice.

Legend of shapes: P pairs, N windows of s×s pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dasnet.errors import PredictorError


@dataclass(frozen=True, kw_only=True, eq=False)
class LeftWindows:
    """Windows that were computed for an earlier block.

    Attributes:
        corners: (N, 2) int64, upper-left corners (y, x) in pixels of the grid, 0 or more; each at most once.
        probability: (P, N, s, s) float32 on the device that computed them.
    """

    corners: NDArray[np.int64]
    probability: Tensor

    @classmethod
    def of(cls, parts: Sequence[tuple[NDArray[np.int64], Tensor]]) -> LeftWindows | None:
        """Corners and probabilities of several parts together; None = there are none."""
        if not parts:
            return None
        corners, probabilities = zip(*parts, strict=True)
        return cls(corners=np.concatenate(corners), probability=torch.cat(probabilities, dim=1))

    @property
    def shape(self) -> tuple[int, int]:
        """Pairs, and pixels of a window's side."""
        pairs, _, _, side = self.probability.shape
        return pairs, side

    def require(self, *, pairs: int, side: int) -> None:
        """Raise PredictorError where these are not the windows of a block of so many pairs, `side` pixels high."""
        if self.shape != (pairs, side):
            raise PredictorError(
                f"earlier blocks left windows of {self.shape[0]} pairs and {self.shape[1]} px to a block of {pairs} "
                f"pairs and windows of {side} px"
            )

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        keys = _keys(self.corners)
        order = np.argsort(keys)
        return keys[order], order

    def numbers(self, corners: NDArray[np.int64]) -> NDArray[np.int64]:
        """(M,) which of the windows each of some corners (M, 2) is, from 0 on; -1 = none of them."""
        keys, order = self._sorted
        wanted = _keys(corners)
        if not len(keys):
            return np.full(len(wanted), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[place] == wanted, order[place], -1)


def among(corners: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether each of some corners (N, 2) is one of others (M, 2)."""
    return np.isin(_keys(corners), _keys(others))


def _keys(corners: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) one number for each corner (N, 2); a grid has fewer than 2³¹ rows and columns."""
    return (corners[:, 0] << 32) + corners[:, 1]

"""Distances of precomputed embeddings behind the interface of networks, so that they have a calibration like any other.

Legend of shapes: B images, C bands, (H, W) pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.precomputed import PrecomputedArchitecture


class PrecomputedNetwork(ChangeNetwork):
    """No weights: a date's features are its bands, brought to length 1. Which of two dates is the first is all one.

    There is nothing to train.
    """

    parts = ("distance",)
    needs_float32 = True

    def __init__(self, architecture: PrecomputedArchitecture) -> None:
        super().__init__()
        self.architecture = architecture

    @property
    def stride(self) -> int:
        """One pixel."""
        return self.architecture.stride

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to unit vectors of the same shape; a vector of length 0 stays one."""
        return F.normalize(images.float(), dim=1)

    def distance(self, before: Tensor, after: Tensor) -> Tensor:
        """(B, H, W) float32 in [0, 2]."""
        if self.architecture.embedding == "cosine":
            return (1 - (before * after).sum(dim=1)).clamp(0, 2)
        return torch.linalg.vector_norm(before - after, dim=1).clamp(max=2)

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """The distance: (2b, C, H, W) to (b, H, W)."""
        before, after = images.chunk(2)
        return (self.distance(self.features(before), self.features(after)),)

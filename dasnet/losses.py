"""The paper's losses on distances: contrastive, and weighted double-margin contrastive (WDMC), with deep supervision.

Source: Chen et al. 2020, section III-D. Eq. (5) and (6) print the hinge of changed pairs as max(d − m, 0), which would
pull changed pairs together; the contrastive loss that they extend, the text around them and the authors' code have
max(m − d, 0), and so has this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dasnet.backbones import STRIDE
from dasnet.model import Distances, upsample

IGNORED = 255
"""Label of a pixel that has no part in the loss."""


@dataclass(frozen=True, kw_only=True)
class DoubleMarginLoss:
    """WDMC: ½ [ w_unchanged (1 − y) max(d − m1, 0)² + w_changed y max(m2 − d, 0)² ], a mean over the valid pixels.

    Attributes:
        margin_unchanged: m1; unchanged pairs nearer than this cost nothing.
        margin_changed: m2; changed pairs farther than this cost nothing. Distances end at 2, so that the paper's 2.2
            pushes changed pairs apart for ever.
        weight_unchanged: w1 of eq. (7), for example 1 / the share of unchanged pixels in the training split.
        weight_changed: w2 of eq. (8), likewise for changed pixels. The sentence after eq. (8) swaps the two names.
        supervision: λ of the spatial, the channel and the fused embedding's distance.
        strides: pixels between two positions of each of the three, as :attr:`dasnet.model.Architecture.strides`.
    """

    margin_unchanged: float = 0.3
    margin_changed: float = 2.2
    weight_unchanged: float = 1.0
    weight_changed: float = 1.0
    supervision: tuple[float, float, float] = (1.0, 1.0, 1.0)
    strides: tuple[int, int, int] = (STRIDE, STRIDE, STRIDE)

    def __post_init__(self) -> None:
        numbers = (self.margin_unchanged, self.margin_changed, self.weight_unchanged, self.weight_changed)
        if not all(math.isfinite(number) and number >= 0 for number in (*numbers, *self.supervision)):
            raise ValueError(f"margins, weights and λ must be finite and not negative: {self}")
        if self.margin_unchanged >= self.margin_changed:
            raise ValueError(
                f"the margin of unchanged pairs, {self.margin_unchanged}, must lie below that of changed pairs, "
                f"{self.margin_changed}"
            )
        if len(self.supervision) != 3 or not any(self.supervision):
            raise ValueError(f"λ are three numbers, one of them positive, not {self.supervision}")

    @classmethod
    def balanced(
        cls,
        *,
        share_changed: float,
        margin_unchanged: float = 0.3,
        margin_changed: float = 2.2,
        supervision: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> DoubleMarginLoss:
        """Weights as in eq. (7) and (8), 1 / share, then divided by their sum's half: they add up to 2.

        The paper's own weights differ from these by a factor alone, which Adam all but ignores; in this form the loss
        can be compared between data sets.

        Args:
            share_changed: share of changed pixels in the training split, in (0, 1).
        """
        if not 0 < share_changed < 1:
            raise ValueError(f"the share of changed pixels must lie between 0 and 1, not {share_changed}")
        return cls(
            margin_unchanged=margin_unchanged,
            margin_changed=margin_changed,
            weight_unchanged=2 * share_changed,
            weight_changed=2 * (1 - share_changed),
            supervision=supervision,
        )

    def of_distance(
        self, distance: Tensor, labels: Tensor, *, stride: int = STRIDE, pixels: Tensor | None = None
    ) -> Tensor:
        """Loss of one distance, a scalar.

        Args:
            distance: (B, h, w) in [0, 2], at the features' resolution or any other; brought to the labels' by bilinear
                interpolation, since interpolated labels would be soft.
            labels: (B, H, W) integers: 1 = changed, 0 = unchanged, 255 = left out; the loss of no pixel is 0.
            stride: pixels between two positions of the distance.
            pixels: what the sum is divided by; None = the labelled pixels of this batch. Where a batch is a part of a
                larger one, give that one's, so that the parts add up to its mean.

        Raises:
            ValueError: other labels, or another number of images.
        """
        if distance.ndim != 3 or labels.ndim != 3 or len(distance) != len(labels):
            raise ValueError(
                f"distances (B, h, w) and labels (B, H, W) have one B, not {tuple(distance.shape)} and "
                f"{tuple(labels.shape)}"
            )
        changed, unchanged = labels == 1, labels == 0
        if not (changed | unchanged | (labels == IGNORED)).all():
            raise ValueError(f"labels are 0, 1 and {IGNORED}, not {torch.unique(labels).tolist()}")
        if distance.shape != labels.shape:
            distance = upsample(distance, height=labels.shape[-2], width=labels.shape[-1], stride=stride)
        near = (distance - self.margin_unchanged).clamp(min=0).square()
        far = (self.margin_changed - distance).clamp(min=0).square()
        cost = self.weight_unchanged * unchanged * near + self.weight_changed * changed * far
        counted = (changed | unchanged).sum() if pixels is None else pixels
        return 0.5 * cost.sum() / counted.clamp(min=1)

    def parts(self, distances: Distances, labels: Tensor, *, pixels: Tensor | None = None) -> Tensor:
        """(3,) losses of the spatial, channel and fused distance, each times its λ; arguments as for one distance."""
        return torch.stack(
            [
                weight * self.of_distance(distance, labels, stride=stride, pixels=pixels)
                if weight
                else distance.new_zeros(())
                for weight, distance, stride in zip(self.supervision, distances, self.strides, strict=True)
            ]
        )

    def __call__(self, distances: Distances, labels: Tensor, *, pixels: Tensor | None = None) -> Tensor:
        """Σ λ · loss over the three embeddings' distances, a scalar; arguments as for :meth:`of_distance`."""
        return self.parts(distances, labels, pixels=pixels).sum()


def contrastive_loss(*, margin: float, supervision: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> DoubleMarginLoss:
    """The contrastive loss (Hadsell et al. 2006): WDMC with m1 = 0, one margin and equal weights.

    Args:
        margin: changed pairs farther than this cost nothing.
        supervision: λ, as in :class:`DoubleMarginLoss`.
    """
    return DoubleMarginLoss(margin_unchanged=0.0, margin_changed=margin, supervision=supervision)

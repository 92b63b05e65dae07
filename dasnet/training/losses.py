"""The losses: the paper's on distances, contrastive and weighted double-margin contrastive (WDMC); of segmentations.

Source: Chen et al. 2020, section III-D. Eq. (5) and (6) print the hinge of changed pairs as max(d − m, 0), which would
pull changed pairs together; the contrastive loss that they extend, the text around them and the authors' code have
max(m − d, 0), and so has this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import STRIDE
from dasnet.networks.decoder import upsample
from dasnet.training.class_frequency import ClassFrequency
from dasnet.training.settings import (
    AnyLoss,
    AnyNetwork,
    ContrastiveSettings,
    CouplingSettings,
    CrossEntropySettings,
    DiceSettings,
    require_margins,
)
from tiling.conventions import IGNORED


class Loss(Protocol):
    """What training asks of a loss."""

    def parts(self, outputs: Sequence[Tensor], labels: Tensor, *, pixels: Tensor | None = None) -> Tensor:
        """A network's outputs for b pairs and their labels (b, H, W), to one loss for each output.

        Args:
            pixels: what sums are divided by; None = the labelled pixels of this batch. Where a batch is a part of a
                larger one, give that one's, so that the parts add up to its mean.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DoubleMarginLoss:
    """WDMC: ½ [ w_unchanged (1 − y) max(d − m1, 0)² + w_changed y max(m2 − d, 0)² ], a mean over the valid pixels.

    Attributes:
        margin_unchanged: m1; unchanged pairs nearer than this cost nothing.
        margin_changed: m2; changed pairs farther than this cost nothing. Distances end at 2, so that the paper's 2.2
            pushes changed pairs apart for ever.
        weight_unchanged: w1 of eq. (7), for example 1 / the share of unchanged pixels in the training split.
        weight_changed: w2 of eq. (8), likewise for changed pixels. The sentence after eq. (8) swaps the two names.
        supervision: λ of each of the network's distances: DASNet's are by the spatial, the channel and the fused
            embedding.
        strides: pixels between two positions of each of them, as :attr:`dasnet.networks.dasnet.Architecture.strides`.
    """

    margin_unchanged: float = 0.3
    margin_changed: float = 2.2
    weight_unchanged: float = 1.0
    weight_changed: float = 1.0
    supervision: tuple[float, ...] = (1.0, 1.0, 1.0)
    strides: tuple[int, ...] = (STRIDE, STRIDE, STRIDE)

    def __post_init__(self) -> None:
        require_margins(self.margin_unchanged, self.margin_changed, supervision=self.supervision)
        if not all(math.isfinite(weight) and weight >= 0 for weight in (self.weight_unchanged, self.weight_changed)):
            raise ValueError(f"weights must be finite and not negative: {self}")

    def of_distance(
        self, distance: Tensor, labels: Tensor, *, stride: int = STRIDE, pixels: Tensor | None = None
    ) -> Tensor:
        """Loss of one distance, a scalar.

        Args:
            distance: (B, h, w) in [0, 2], at the features' resolution or any other; brought to the labels' by bilinear
                interpolation, since interpolated labels would be soft.
            labels: (B, H, W) integers: 1 = changed, 0 = unchanged, 255 = left out; the loss of no pixel is 0.
            stride: pixels between two positions of the distance.
            pixels: as in :meth:`Loss.parts`.

        Raises:
            ValueError: other labels, or another number of images.
        """
        if distance.ndim != 3 or labels.ndim != 3 or len(distance) != len(labels):
            raise ValueError(
                f"distances (B, h, w) and labels (B, H, W) have one B, not {tuple(distance.shape)} and "
                f"{tuple(labels.shape)}"
            )
        unchanged, changed = classes(labels)
        if distance.shape != labels.shape:
            distance = upsample(distance, height=labels.shape[-2], width=labels.shape[-1], stride=stride)
        near = (distance - self.margin_unchanged).clamp(min=0).square()
        far = (self.margin_changed - distance).clamp(min=0).square()
        cost = self.weight_unchanged * unchanged * near + self.weight_changed * changed * far
        counted = (changed | unchanged).sum() if pixels is None else pixels
        return 0.5 * cost.sum() / counted.clamp(min=1)

    def parts(self, distances: Sequence[Tensor], labels: Tensor, *, pixels: Tensor | None = None) -> Tensor:
        """The loss of each of the network's distances, times its λ; arguments as for one distance."""
        return torch.stack(
            [
                weight * self.of_distance(distance, labels, stride=stride, pixels=pixels)
                if weight
                else distance.new_zeros(())
                for weight, distance, stride in zip(self.supervision, distances, self.strides, strict=True)
            ]
        )

    def __call__(self, distances: Sequence[Tensor], labels: Tensor, *, pixels: Tensor | None = None) -> Tensor:
        """Σ λ · loss over the network's distances, a scalar; arguments as for :meth:`of_distance`."""
        return self.parts(distances, labels, pixels=pixels).sum()


@dataclass(frozen=True, kw_only=True)
class SegmentationLoss:
    """Cross-entropy and Dice of log-odds z, each times its share.

    Cross-entropy: w_unchanged (1 − y) ln(1 + e^z) + w_changed y ln(1 + e^−z), a mean over valid pixels; the same as the
    negative log-likelihood of a softmax over two scores with z their difference. The mean is over pixels, not over
    their weights as torch's is, so that the parts of a batch add up; for one data set that is a factor, which Adam all
    but ignores, but for its weight decay: beside a smaller loss the same decay weighs more.

    Dice: 1 − (2 Σ p y + 1) / (Σ p + Σ y + 1) of each image with p = σ(z), a mean over images by their valid pixels
    (Milletari et al. 2016, with the sums of a set's size, and 1 for images without a change).

    Attributes:
        cross_entropy, dice: shares.
        weight_unchanged: of the cross-entropy, for example 1 / the share of unchanged pixels in the training split.
        weight_changed: likewise for changed pixels.
        supervision: λ of each of the network's outputs.
        strides: pixels between two positions of each of them.
    """

    cross_entropy: float = 1.0
    dice: float = 0.0
    weight_unchanged: float = 1.0
    weight_changed: float = 1.0
    supervision: tuple[float, ...] = (1.0,)
    strides: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        shares = (self.weight_unchanged, self.weight_changed, self.cross_entropy, self.dice, *self.supervision)
        if not all(math.isfinite(w) and w >= 0 for w in shares):
            raise ValueError(f"weights must be finite and not negative: {self}")

    def parts(self, logits: Sequence[Tensor], labels: Tensor, *, pixels: Tensor | None = None) -> Tensor:
        """Log-odds of changed (B, h, w), each brought to the labels' resolution, to the loss of each times its λ.

        Raises:
            ValueError: other labels, or another number of images.
        """
        unchanged, changed = classes(labels)
        counted = ((changed | unchanged).sum() if pixels is None else pixels).clamp(min=1)
        height, width = labels.shape[-2:]
        losses = []
        for share, logit, stride in zip(self.supervision, logits, self.strides, strict=True):
            fine = upsample(logit, height=height, width=width, stride=stride)
            if fine.shape != labels.shape:
                raise ValueError(
                    f"log-odds and labels have one shape, not {tuple(fine.shape)} and {tuple(labels.shape)}"
                )
            losses.append(share * self._of(fine, unchanged, changed) / counted if share else logit.new_zeros(()))
        return torch.stack(losses)

    def _of(self, logit: Tensor, unchanged: Tensor, changed: Tensor) -> Tensor:
        """The sum over valid pixels."""
        total = logit.new_zeros(())
        if self.cross_entropy:
            cost = self.weight_unchanged * unchanged * F.softplus(logit)
            total = total + self.cross_entropy * (cost + self.weight_changed * changed * F.softplus(-logit)).sum()
        if self.dice:
            known = changed | unchanged
            probability = logit.sigmoid() * known
            common = (probability * changed).sum(dim=(1, 2))
            both = probability.sum(dim=(1, 2)) + changed.sum(dim=(1, 2))
            total = total + self.dice * ((1 - (2 * common + 1) / (both + 1)) * known.sum(dim=(1, 2))).sum()
        return total


@dataclass(frozen=True)
class MeanCost:
    """For a network that says itself what every pixel costs: the mean over labelled pixels, whatever their label."""

    def parts(self, costs: Sequence[Tensor], labels: Tensor, *, pixels: Tensor | None = None) -> Tensor:
        """Costs of pixels (B, H, W), each with labels of the same shape, to the mean of each."""
        counted = (labels != IGNORED).sum() if pixels is None else pixels
        return torch.stack([cost.masked_fill(labels == IGNORED, 0).sum() / counted.clamp(min=1) for cost in costs])


def build_loss(loss: AnyLoss, network: AnyNetwork, frequency: ClassFrequency) -> Loss:
    """The loss of a network's outputs, with the weights that a training split of that frequency gives.

    Raises:
        ValueError: the split has one class alone, and its weights are asked for.
    """
    if isinstance(loss, CouplingSettings):
        return MeanCost()
    strides = network.architecture(1).strides
    if isinstance(loss, DiceSettings):
        return SegmentationLoss(
            cross_entropy=loss.cross_entropy, dice=1.0, supervision=network.supervision, strides=strides
        )
    unchanged, changed = (1.0, 1.0) if isinstance(loss, ContrastiveSettings) else loss.weights(frequency)
    if isinstance(loss, CrossEntropySettings):
        return SegmentationLoss(
            weight_unchanged=unchanged, weight_changed=changed, supervision=network.supervision, strides=strides
        )
    return DoubleMarginLoss(
        margin_unchanged=loss.margins[0],
        margin_changed=loss.margins[1],
        weight_unchanged=unchanged,
        weight_changed=changed,
        supervision=network.supervision,
        strides=strides,
    )


def classes(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Where pixels are unchanged, and where changed, both bool; ValueError for labels that are not 0, 1 or 255."""
    unchanged, changed = labels == 0, labels == 1
    if not (changed | unchanged | (labels == IGNORED)).all():
        raise ValueError(f"labels are 0, 1 and {IGNORED}, not {torch.unique(labels).tolist()}")
    return unchanged, changed

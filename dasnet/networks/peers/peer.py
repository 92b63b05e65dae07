"""What the networks beside DASNet have in common: how they are described, and how a segmentation becomes a distance.

Legend of shapes: B images, C bands, (H, W) pixels; all of these networks answer for every pixel.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.change_network import ChangeNetwork

Features = tuple[Tensor, ...]
"""Features of one date, (B, channels, H / 2^n, W / 2^n) for the network's resolutions, finest first."""


class PeerNetwork(ChangeNetwork):
    """A network beside DASNet."""

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__()
        self.architecture = architecture

    @property
    def stride(self) -> int:
        """Pixels between two positions of the distance."""
        return self.architecture.stride

    @abstractmethod
    def features(self, images: Tensor) -> Features:
        """(B, C, H, W) to a tensor of B for each resolution that is kept."""

    def compared(self, features: Features) -> Features:
        """What :meth:`distance` uses of both dates' features, tensors of 2b, the first b those of the first date."""
        return features

    def of_both_dates(self, images: Tensor) -> tuple[Features, Features]:
        """Features of the first and of the second date: (2b, C, H, W) to tensors of b."""
        halves = [level.chunk(2) for level in self.features(images)]
        return tuple(first for first, _ in halves), tuple(second for _, second in halves)


class SegmentationNetwork(PeerNetwork):
    """A network that calls every pixel changed or unchanged, by two scores and a softmax.

    The softmax of two scores is the sigmoid of their difference, so that this difference is all that is needed of
    them: trained by the cross-entropy, and as a distance twice its sigmoid, 2 · P(changed).
    """

    parts = ("segmentation",)

    @property
    def deepest(self) -> nn.Module | None:
        """What makes the coarsest features of both dates together; None where the decoder alone joins the dates."""
        return None

    @property
    @abstractmethod
    def last_layer(self) -> nn.Module:
        """What makes the scores, of features of both dates."""

    @abstractmethod
    def scores(self, before: Features, after: Features) -> Tensor:
        """(B, 2, H, W) scores of unchanged and changed."""

    def logit(self, before: Features, after: Features) -> Tensor:
        """(B, H, W) log-odds of changed, in the arithmetic that the network computes in."""
        unchanged, changed = self.scores(before, after).unbind(1)
        return changed - unchanged

    def distance(self, before: Features, after: Features) -> Tensor:
        """Twice the network's probability: (B, H, W) float32 in [0, 2]."""
        return 2 * self.logit(before, after).float().sigmoid()

    def outputs(self, images: Tensor) -> tuple[Tensor]:
        """(2b, C, H, W) to the log-odds (b, H, W)."""
        return (self.logit(*self.of_both_dates(images)),)

"""DSCN: a Siamese network without pooling gives every pixel a vector; how far two dates' vectors lie apart is change.

Source: Zhan et al. 2017, "Change detection based on deep Siamese convolutional network for optical aerial images": one
network for both dates, full resolution throughout, a contrastive loss weighted by class, a threshold on the distance
(their k-nearest-neighbour clean-up of the map is left out, as every method's map is scored alike). Number and size of
the layers here are not taken from the paper: five 5×5 convolutions. Vectors have length 1, so that distances end at 2.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.peers.peer import Features, PeerNetwork

_LAYERS = 5
_SIDE = 5


class DSCN(PeerNetwork):
    """DSCN. Which of two dates is the first does not matter."""

    parts = ("distance",)

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__(architecture)
        channels = [architecture.in_bands, *[architecture.width] * _LAYERS]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            convolution = nn.Conv2d(inputs, outputs, _SIDE, padding=_SIDE // 2)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def features(self, images: Tensor) -> Features:
        """(B, C, H, W) to one tensor (B, width, H, W) float32 of length 1 along the channels."""
        # float32 whatever the network computes in: distances of near-equal vectors are differences of rounding
        return (F.normalize(self.layers(images).float(), dim=1),)

    def distance(self, before: Features, after: Features) -> Tensor:
        """L2 distance of the vectors: (B, H, W) float32 in [0, 2]."""
        return vector_norm(before[0] - after[0], dim=1)

    def outputs(self, images: Tensor) -> tuple[Tensor]:
        """(2b, C, H, W) to the distances (b, H, W)."""
        return (self.distance(*self.of_both_dates(images)),)

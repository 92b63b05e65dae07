"""DASNet: one encoder for both dates, dual attention, three embeddings, a distance for every position.

Legend of shapes: B images, C bands or channels, (H, W) pixels, (h, w) positions of the features, eight pixels apart;
with a decoder the fused embedding's are two pixels apart, or one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import Architecture, Attention
from dasnet.networks.attention import ChannelAttention, SpatialAttention
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.decoder import PyramidDecoder
from dasnet.networks.encoders.backbones import build_encoder

_DROPOUT = 0.1


class Embeddings(NamedTuple):
    """The three embeddings of a batch of images, each (B, C, h, w), float32 of length 1 along the channels.

    Where the distance is learned they have no unit length, and the type that the network computes in.
    """

    spatial: Tensor
    channel: Tensor
    fused: Tensor


class Distances(NamedTuple):
    """The distances between two dates by each embedding, each (B, h, w) float32 in [0, 2]."""

    spatial: Tensor
    channel: Tensor
    fused: Tensor


class DualAttentionHead(nn.Module):
    """Two branches, one for each attention, and an embedding from each and from their sum. Keys are the authors'."""

    def __init__(
        self, in_channels: int, channels: int, *, attention: Attention, norm: bool, fused_channels: int
    ) -> None:
        super().__init__()
        self.conv5a = _branch_convolution(in_channels, channels, norm=norm)
        self.conv5c = _branch_convolution(in_channels, channels, norm=norm)
        self.sa = SpatialAttention(channels) if attention in ("spatial", "both") else nn.Identity()
        self.sc = ChannelAttention() if attention in ("channel", "both") else nn.Identity()
        self.conv51 = _branch_convolution(channels, channels, norm=norm)
        self.conv52 = _branch_convolution(channels, channels, norm=norm)
        self.conv6 = _embedding_convolution(channels)
        self.conv7 = _embedding_convolution(channels)
        self.conv8 = _embedding_convolution(fused_channels)

    def branches(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) to the spatial and the channel branch, (B, channels, h, w) each."""
        return self.conv51(self.sa(self.conv5a(features))), self.conv52(self.sc(self.conv5c(features)))


_PRIOR = 0.05
"""Share of changed pixels that a learned difference starts from."""


class LearnedDifference(nn.Module):
    """Log-odds of a change from the absolute difference of two dates' features, by one 1×1 convolution.

    In the place of a distance: what a segmentation network has, on the same features. Not in the paper.

    It starts as a distance does: a larger difference is a more probable change, and none is a change in one pixel of
    twenty (a prior as in section 4.1 of Lin et al. 2017, *Focal Loss for Dense Object Detection*). From even odds and
    random signs it has to learn first that most pixels are unchanged, and does so as "what differs is unchanged".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)
        with torch.no_grad():
            self.score.weight.abs_()
            self.score.get_parameter("bias").fill_(math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Features of two dates (B, C, h, w) to log-odds (B, h, w), float32."""
        return self.score((a - b).abs()).float()[:, 0]


class DASNet(ChangeNetwork):
    """Dual attentive Siamese network; Siam-Conv is the same with ``attention="none"``.

    Which of two dates is the first does not matter.

    Source: Chen et al. 2020, and the layers of the authors' released network where the text leaves them open.
    """

    parts = ("spatial", "channel", "fused")

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        assert architecture.head_channels is not None
        self.architecture = architecture
        backbone = build_encoder(architecture.backbone, architecture.in_bands)
        self.backbone = backbone
        channels = architecture.head_channels
        self.decoder = (
            None
            if architecture.decoder == "none"
            else PyramidDecoder(
                architecture.decoder,
                in_bands=architecture.in_bands,
                pyramid_channels=backbone.pyramid_channels,
                attended_channels=channels,
            )
        )
        fused_channels = channels if self.decoder is None else self.decoder.channels
        self.head = DualAttentionHead(
            backbone.channels,
            channels,
            attention=architecture.attention,
            norm=architecture.backbone != "vgg16",  # plain VGG16 has none, and neither has the authors' head on it
            fused_channels=fused_channels,
        )
        self.differences: nn.ModuleList | None = None
        if architecture.distance == "learned":
            widths = (channels, channels, fused_channels)
            self.differences = nn.ModuleList(LearnedDifference(width) for width in widths)

    @property
    def stride(self) -> int:
        """Pixels between two positions of the distance."""
        return self.architecture.stride

    def embed(self, images: Tensor) -> Embeddings:
        """All three embeddings of images (B, in_bands, H, W), normalised as the bundle says."""
        spatial, channel, fused = self._features(images)
        return Embeddings(
            spatial=self._embedding(self.head.conv6(spatial)),
            channel=self._embedding(self.head.conv7(channel)),
            fused=self._embedding(self.head.conv8(fused)),
        )

    def embed_fused(self, images: Tensor) -> Tensor:
        """The fused embedding alone, which is what a prediction needs: (B, in_bands, H, W) to (B, C, h, w)."""
        return self._embedding(self.head.conv8(self._features(images)[-1]))

    def _embedding(self, features: Tensor) -> Tensor:
        return _unit(features) if self.differences is None else features

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the spatial, the channel and the fused embedding are made of."""
        pyramid = self.backbone.pyramid(images)
        spatial, channel = self.head.branches(pyramid.last)
        attended = spatial + channel
        return spatial, channel, attended if self.decoder is None else self.decoder(images, pyramid, attended)

    features = embed_fused

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of two fused embeddings (B, C, h, w) for each position, by the architecture: (B, h, w) in [0, 2]."""
        if self.differences is not None:
            return 2 * self.differences[-1](a, b).sigmoid()
        if self.architecture.distance == "cosine":
            return 1 - (a * b).sum(dim=1)
        return vector_norm(a - b, dim=1)

    def forward(self, before: Tensor, after: Tensor) -> Distances:
        """Distances of two dates (B, in_bands, H, W), at the resolution of each embedding."""
        a, b = self.embed(before), self.embed(after)
        if self.differences is not None:
            return Distances(*(2 * logit.sigmoid() for logit in self._log_odds(zip(a, b, strict=True))))
        return Distances(
            spatial=self.distance(a.spatial, b.spatial),
            channel=self.distance(a.channel, b.channel),
            fused=self.distance(a.fused, b.fused),
        )

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """(2b, C, H, W) to the three distances of b pairs, at the features' resolution; log-odds where learned."""
        dates = [embedding.chunk(2) for embedding in self.embed(images)]
        if self.differences is not None:
            return tuple(self._log_odds(dates))
        return Distances(*(self.distance(*pair) for pair in dates))

    def _log_odds(self, dates: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
        assert self.differences is not None
        return [difference(*pair) for difference, pair in zip(self.differences, dates, strict=True)]


def _unit(x: Tensor) -> Tensor:
    # In float32 whatever the network computes in: distances of near-equal embeddings are differences of rounding.
    return F.normalize(x.float(), dim=1)


def _branch_convolution(inputs: int, outputs: int, *, norm: bool) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU())


def _embedding_convolution(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(_DROPOUT), nn.Conv2d(channels, channels, 1))

"""FC-EF, FC-Siam-conc and FC-Siam-diff: small U-Nets on both dates at once, or with one encoder for both.

Source: Daudt et al. 2018, "Fully convolutional Siamese networks for change detection", and the layers of the authors'
released networks where the text leaves them open.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.encoders.positions import grown_to
from dasnet.networks.peers.peer import Features, SegmentationNetwork

_DROPOUT = 0.2
_STAGES = ((1, 2), (2, 2), (4, 3), (8, 3))
"""Channels in widths, and convolutions, of each resolution, the image's own first."""


class Encoder(nn.Module):
    """Four resolutions; what a decoder takes over from each."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        stages = []
        for widths, layers in _STAGES:
            channels = width * widths
            stages.append(nn.Sequential(*_blocks([in_channels, *[channels] * layers])))
            in_channels = channels
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> Features:
        """(B, in_channels, H, W) to four tensors, (B, width · 2^n, H / 2^n, W / 2^n)."""
        levels: list[Tensor] = []
        for stage in self.stages:
            x = stage(x if not levels else F.max_pool2d(x, 2))
            levels.append(x)
        return tuple(levels)


class Decoder(nn.Module):
    """From the deepest features back to the image's resolution, with what the encoder found on the way.

    Args:
        skips: channels taken over at each resolution, in channels of the encoder there.
    """

    def __init__(self, width: int, *, skips: int) -> None:
        super().__init__()
        self.up, self.stages = nn.ModuleList(), nn.ModuleList()
        for index, (widths, layers) in reversed(list(enumerate(_STAGES))):
            channels = width * widths
            self.up.append(nn.ConvTranspose2d(channels, channels, 3, padding=1, stride=2, output_padding=1))
            inner = [(1 + skips) * channels, *[channels] * (layers - 1)]
            if index:
                below = width * _STAGES[index - 1][0]
                self.stages.append(nn.Sequential(*_blocks([*inner, below], transposed=True)))
            else:
                last = nn.ConvTranspose2d(channels, 2, 3, padding=1)
                self.stages.append(nn.Sequential(*_blocks(inner, transposed=True), last))

    def forward(self, deepest: Tensor, skips: Features) -> Tensor:
        """The last encoder stage's features (B, 8 width, H / 8, W / 8), and of each resolution what is taken over."""
        x = F.max_pool2d(deepest, 2)
        for up, stage, skip in zip(self.up, self.stages, reversed(skips), strict=True):
            x = stage(torch.cat([grown_to(up(x), skip), skip], dim=1))
        return x


class _FullyConvolutional(SegmentationNetwork):
    encoder: Encoder
    decoder: Decoder

    @property
    def last_layer(self) -> nn.Module:
        """The decoder's last convolution."""
        stage = self.decoder.stages[-1]
        assert isinstance(stage, nn.Sequential)
        return stage[-1]


class EarlyFusion(_FullyConvolutional):
    """FC-EF: both dates are one image of twice as many bands. Which date is the first matters."""

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__(architecture)
        self.encoder = Encoder(2 * architecture.in_bands, architecture.width)
        self.decoder = Decoder(architecture.width, skips=1)

    @property
    def deepest(self) -> nn.Module:
        """The encoder's last stage."""
        return self.encoder.stages[-1]

    def features(self, images: Tensor) -> Features:
        """The images themselves: nothing can be computed of one date alone."""
        return (images,)

    def scores(self, before: Features, after: Features) -> Tensor:
        """(B, 2, H, W) scores of unchanged and changed."""
        levels = self.encoder(torch.cat([before[0], after[0]], dim=1))
        return self.decoder(levels[-1], levels)


class SiameseConcatenation(_FullyConvolutional):
    """FC-Siam-conc: the decoder takes over the features of both dates. Which date is the first matters.

    As in the authors' network the decoder starts from the second date's deepest features.
    """

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__(architecture)
        self.encoder = Encoder(architecture.in_bands, architecture.width)
        self.decoder = Decoder(architecture.width, skips=2)

    def features(self, images: Tensor) -> Features:
        """(B, C, H, W) to four resolutions, (B, width · 2^n, H / 2^n, W / 2^n)."""
        return self.encoder(images)

    def scores(self, before: Features, after: Features) -> Tensor:
        """(B, 2, H, W) scores of unchanged and changed."""
        return self.decoder(after[-1], tuple(torch.cat(levels, dim=1) for levels in zip(before, after, strict=True)))


class SiameseDifference(_FullyConvolutional):
    """FC-Siam-diff: the decoder takes over the absolute differences of the features. Which date is the first matters.

    It does by the decoder's start alone: as in the authors' network, the second date's deepest features.
    """

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__(architecture)
        self.encoder = Encoder(architecture.in_bands, architecture.width)
        self.decoder = Decoder(architecture.width, skips=1)

    def features(self, images: Tensor) -> Features:
        """(B, C, H, W) to four resolutions, (B, width · 2^n, H / 2^n, W / 2^n)."""
        return self.encoder(images)

    def scores(self, before: Features, after: Features) -> Tensor:
        """(B, 2, H, W) scores of unchanged and changed."""
        return self.decoder(after[-1], tuple((a - b).abs() for a, b in zip(before, after, strict=True)))


def _blocks(channels: list[int], *, transposed: bool = False) -> list[nn.Module]:
    """A convolution with normalisation and dropout from each number of channels to the next."""
    convolution = nn.ConvTranspose2d if transposed else nn.Conv2d
    return [
        nn.Sequential(
            convolution(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout2d(_DROPOUT)
        )
        for inputs, outputs in pairwise(channels)
    ]

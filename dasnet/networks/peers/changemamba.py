"""ChangeMamba for two classes (MambaBCD): state-space layers see each date, and then both dates as one image.

Source: Chen et al. 2024, "ChangeMamba: remote sensing change detection with spatiotemporal state space model", and
the layers of the authors' released network, by its configuration ``vssm_tiny_224_0229flex``, where the text leaves
them open. Given the weights of their code's network, random ones, the scores here are theirs to 1.5e-6 at 33 × 75, 64
× 64, 72 × 100 and 128 × 128 px, and the gradients of all weights to 6e-6 of their size, their scan being computed by
their own reference of its CUDA kernel; its 32,613,506 parameters are all here. (The paper's smallest network has
17.13 M; the code's has grown since.)

In training the authors leave out blocks with shares that rise from 0 to 0.2 in the encoder, and with 0.1 in the
decoder; here all have one share, the recipe's dropout. Weights start from noise: ImageNet's of VMamba are not at
hand.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.encoders.positions import resized
from dasnet.networks.peers.peer import Features, SegmentationNetwork
from dasnet.networks.peers.state_space import StateSpaceBlock

_DEPTHS = (2, 2, 4, 2)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels of every position, of (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Blocks(nn.Sequential):
    """State-space blocks on (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Encoder(nn.Module):
    """Four resolutions of one date, from a quarter of the image's on; position i of stage n lies at pixel 2^(n+2) · i.

    Attributes:
        channels: of each resolution.
    """

    def __init__(self, in_bands: int, width: int) -> None:
        super().__init__()
        self.channels = tuple(width * 2**n for n in range(len(_DEPTHS)))
        half = max(width // 2, 1)
        self.stem = nn.Sequential(
            _halving(in_bands, half), ChannelNorm(half), nn.GELU(), _halving(half, width), ChannelNorm(width)
        )
        self.stages = nn.ModuleList(
            Blocks(*(StateSpaceBlock(channels) for _ in range(depth)))
            for channels, depth in zip(self.channels, _DEPTHS, strict=True)
        )
        self.halvings = nn.ModuleList(
            nn.Sequential(_halving(*pair), ChannelNorm(pair[1])) for pair in pairwise(self.channels)
        )
        self.norms = nn.ModuleList(ChannelNorm(channels) for channels in self.channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Features:
        """(B, C, H, W) to four tensors, (B, width · 2^n, H / 2^(n+2), W / 2^(n+2))."""
        x, levels = self.stem(images), []
        for number, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = stage(self.halvings[number - 1](x) if number else x)
            levels.append(norm(x))
        return tuple(levels)


class Relating(nn.Module):
    """Both dates' features of one resolution, read together in three ways, as one of `channels` channels.

    One above the other, so that a position holds both dates; with their columns in turn, so that a position is followed
    by itself on the other date; and one date beside the other.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.stacked = _narrowed(2 * inputs, channels)
        self.in_turn = _narrowed(inputs, channels)
        self.side_by_side = _narrowed(inputs, channels)
        self.fusing = nn.Sequential(nn.Conv2d(5 * channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Twice (B, inputs, h, w) to (B, channels, h, w)."""
        stacked = self.stacked(torch.cat([before, after], dim=1))
        in_turn = self.in_turn(torch.stack([before, after], dim=4).flatten(3))
        beside = self.side_by_side(torch.cat([before, after], dim=3))
        parts = [stacked, in_turn[..., ::2], in_turn[..., 1::2], *beside.chunk(2, dim=3)]
        return self.fusing(torch.cat(parts, dim=1))


class Smoothing(nn.Module):
    """Two 3×3 convolutions, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same shape."""
        inner = F.relu(self.first_norm(self.first(x)))
        return F.relu(x + self.second_norm(self.second(inner)))


class ChangeMamba(SegmentationNetwork):
    """ChangeMamba. Which date is the first matters: scans read it first.

    `width` is the channels of the finest features, at a quarter of the image's resolution; the decoder has four thirds.
    """

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__(architecture)
        channels = max(4 * architecture.width // 3, 1)
        self.encoder = Encoder(architecture.in_bands, architecture.width)
        self.relating = nn.ModuleList(Relating(inputs, channels) for inputs in reversed(self.encoder.channels))
        self.smoothing = nn.ModuleList(Smoothing(channels) for _ in _DEPTHS[1:])
        self.classifier = nn.Conv2d(channels, 2, 1)

    @property
    def deepest(self) -> nn.Module:
        """What relates the coarsest features."""
        return self.relating[0]

    @property
    def last_layer(self) -> nn.Module:
        """The classifier, at a quarter of the image's resolution."""
        return self.classifier

    def features(self, images: Tensor) -> Features:
        """(B, C, H, W) to the images themselves, to whose size the scores are enlarged, and four resolutions,
        (B, width · 2^n, H / 2^(n+2), W / 2^(n+2))."""
        return (images, *self.encoder(images))

    def scores(self, before: Features, after: Features) -> Tensor:
        """(B, 2, H, W) scores of unchanged and changed."""
        x: Tensor | None = None
        for number, (relating, a, b) in enumerate(zip(self.relating, before[:0:-1], after[:0:-1], strict=True)):
            finer = relating(a, b)
            x = finer if x is None else self.smoothing[number - 1](resized(x, like=finer) + finer)
        assert x is not None
        return resized(self.classifier(x), like=before[0])


def _halving(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)


def _narrowed(inputs: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, channels, 1), Blocks(StateSpaceBlock(channels)))

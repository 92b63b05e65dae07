"""BiDateNet: a U-Net with one encoder for both dates; at each resolution a convolutional LSTM reads both in turn.

Source: Papadomanolaki et al. 2019, "Detecting urban changes with recurrent neural networks from multitemporal
Sentinel-2 data", and the layers of the authors' released network (U-Net with LSTM blocks) where the text leaves them
open.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.encoders.positions import grown_to
from dasnet.networks.peers.peer import Features, SegmentationNetwork

_LEVELS = 5
_DROPOUT = 0.7


class ConvolutionalLSTM(nn.Module):
    """An LSTM whose products are 3×3 convolutions: it reads images one after the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(self, sequence: tuple[Tensor, ...]) -> Tensor:
        """Tensors (B, C, h, w) to the state after the last of them, the same shape; states start at zero."""
        hidden = cell = torch.zeros_like(sequence[0])
        for read in sequence:
            entry, forget, out, candidate = self.gates(torch.cat([read, hidden], dim=1)).chunk(4, dim=1)
            cell = forget.sigmoid() * cell + entry.sigmoid() * candidate.tanh()
            hidden = out.sigmoid() * cell.tanh()
        return hidden


class BiDateNet(SegmentationNetwork):
    """BiDateNet. Which date is the first matters: the LSTM reads it first."""

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__(architecture)
        channels = [architecture.width * 2**level for level in range(_LEVELS)]
        inputs = [architecture.in_bands, *channels[:-1]]
        self.encoder = nn.ModuleList(_two(*pair) for pair in zip(inputs, channels, strict=True))
        self.memory = nn.ModuleList(ConvolutionalLSTM(count) for count in channels)
        self.dropout = nn.ModuleList(nn.Dropout(_DROPOUT) for _ in channels)
        self.up = nn.ModuleList(_one(2 * count, count) for count in reversed(channels[:-1]))
        self.decoder = nn.ModuleList(_two(2 * count, count) for count in reversed(channels[:-1]))
        self.classifier = nn.Conv2d(architecture.width, 2, 1)

    @property
    def deepest(self) -> nn.Module:
        """The LSTM of the coarsest resolution."""
        return self.memory[-1]

    @property
    def last_layer(self) -> nn.Module:
        """The classifier."""
        return self.classifier

    def features(self, images: Tensor) -> Features:
        """(B, C, H, W) to five resolutions, (B, width · 2^n, H / 2^n, W / 2^n)."""
        levels: list[Tensor] = []
        for level in self.encoder:
            levels.append(level(F.max_pool2d(levels[-1], 2) if levels else images))
        return tuple(levels)

    def scores(self, before: Features, after: Features) -> Tensor:
        """(B, 2, H, W) scores of unchanged and changed."""
        levels = zip(self.memory, self.dropout, before, after, strict=True)
        *skips, x = [dropout(memory((first, second))) for memory, dropout, first, second in levels]
        for up, block, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            x = grown_to(up(F.interpolate(x, scale_factor=2, mode="nearest")), skip)
            x = block(torch.cat([x, skip], dim=1))
        return self.classifier(x)


def _one(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


def _two(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_one(inputs, outputs), _one(outputs, outputs))

"""CDnet: a contraction and an expansion of seven-by-seven convolutions on both dates at once.

Source: Alcantarilla et al. 2018, "Street-view change detection with deconvolutional networks": four blocks down, with
2×2 maxima, four up, each value back to where it was the largest, 64 channels everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.peers.peer import Features, SegmentationNetwork

_BLOCKS = 4
_SIDE = 7


class CDnet(SegmentationNetwork):
    """CDnet. Which date is the first matters."""

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__(architecture)
        inputs, width = 2 * architecture.in_bands, architecture.width
        self.contraction = nn.ModuleList(_block(width if n else inputs, width) for n in range(_BLOCKS))
        self.expansion = nn.ModuleList(_block(width, width) for _ in range(_BLOCKS))
        self.classifier = nn.Conv2d(width, 2, _SIDE, padding=_SIDE // 2)

    @property
    def deepest(self) -> nn.Module:
        """The last block of the contraction."""
        return self.contraction[-1]

    @property
    def last_layer(self) -> nn.Module:
        """The classifier."""
        return self.classifier

    def features(self, images: Tensor) -> Features:
        """The images themselves: nothing can be computed of one date alone."""
        return (images,)

    def scores(self, before: Features, after: Features) -> Tensor:
        """(B, 2, H, W) scores of unchanged and changed."""
        x = torch.cat([before[0], after[0]], dim=1)
        places = []
        for block in self.contraction:
            x = block(x)
            size = (x.shape[-2], x.shape[-1])
            x, index = F.max_pool2d(x, 2, return_indices=True)
            places.append((index, size))
        for block, (index, size) in zip(self.expansion, reversed(places), strict=True):
            x = block(unpooled(x, index, height=size[0], width=size[1]))
        return self.classifier(x)


def unpooled(x: Tensor, index: Tensor, *, height: int, width: int) -> Tensor:
    """Values back to where the 2×2 maxima were, zeros elsewhere: (B, C, h, w) to (B, C, height, width).

    As torch's MaxUnpool2d, whose scattered writes torch calls not reproducible: squares of two do not overlap, so that
    every pixel can look up whether it was the largest of its own.

    Args:
        index: (B, C, h, w), places of the maxima as torch's max_pool2d returns them: row · width + column.
    """
    largest, where = (values.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1) for values in (x, index))
    rows = torch.arange(largest.shape[-2], device=x.device)[:, None]
    places = rows * width + torch.arange(largest.shape[-1], device=x.device)
    fine = torch.where(where == places, largest, torch.zeros_like(largest))
    return F.pad(fine, (0, width - fine.shape[-1], 0, height - fine.shape[-2]))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, _SIDE, padding=_SIDE // 2)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

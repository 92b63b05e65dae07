"""A light decoder: what the attended features say, put back onto the finer positions of the encoder.

Not in the paper, whose embeddings lie eight pixels apart: outlines between them are interpolated. Features are brought
to a quarter and then to a half of the image's resolution and added to the encoder's own there, as in feature pyramids
(Lin et al. 2017).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.backbones import Pyramid

STRIDE = 2
"""Pixels of the image between two positions of what the decoder makes."""


class LightDecoder(nn.Module):
    """From the attended features and the encoder's finer ones to features two pixels apart."""

    def __init__(self, pyramid_channels: tuple[int, int, int], attended_channels: int, channels: int) -> None:
        """Args: channels: of everything the decoder computes, and of its result."""
        super().__init__()
        half, quarter, _ = pyramid_channels
        self.from_attended = nn.Conv2d(attended_channels, channels, 1)
        self.from_quarter = nn.Conv2d(quarter, channels, 1)
        self.from_half = nn.Conv2d(half, channels, 1)
        self.merge_quarter = _merge(channels)
        self.merge_half = _merge(channels)

    def forward(self, pyramid: Pyramid, attended: Tensor) -> Tensor:
        """Attended features (B, C, h, w) at the positions of `pyramid.last` to (B, channels, …) at `pyramid.half`'s."""
        quarter = self.from_quarter(pyramid.quarter)
        x = self.merge_quarter(quarter + enlarge(self.from_attended(attended), 2, like=quarter))
        half = self.from_half(pyramid.half)
        return self.merge_half(half + enlarge(x, 2, like=half))


def enlarge(x: Tensor, factor: int, *, like: Tensor) -> Tensor:
    """Bilinear interpolation of (B, C, h, w) to the rows and columns of `like`: position i comes to lie at factor · i.

    Beyond the last position its value is kept; positions beyond `like` are cut off.
    """
    rows, cols = x.shape[-2:]
    height, width = like.shape[-2:]
    size = (factor * (rows - 1) + 1, factor * (cols - 1) + 1)
    fine = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
    beyond = (0, max(width - size[1], 0), 0, max(height - size[0], 0))
    return F.pad(fine, beyond, mode="replicate")[..., :height, :width]


def _merge(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())

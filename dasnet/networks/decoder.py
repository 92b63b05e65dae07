"""A decoder: what the attended features say, put back onto the finer positions of the encoder, and of the image.

Not in the paper, whose embeddings lie eight pixels apart: outlines between them are interpolated. Features are brought
to a quarter and to a half of the image's resolution, or to all of it, and added there to what the encoder, or one
convolution, sees at that resolution, as in feature pyramids (Lin et al. 2017).
"""

from __future__ import annotations

from torch import Tensor, nn

from dasnet.networks.architectures import Decoder
from dasnet.networks.encoders.positions import Pyramid, enlarge


class PyramidDecoder(nn.Module):
    """From the attended features and the encoder's finer ones to features one or two pixels apart.

    Attributes:
        channels: channels of the result: half as many as the attended features have, or a quarter at full resolution.
    """

    def __init__(
        self, decoder: Decoder, *, in_bands: int, pyramid_channels: tuple[int, int, int], attended_channels: int
    ) -> None:
        super().__init__()
        half, quarter, _ = pyramid_channels
        width = attended_channels // 2
        self.from_attended = nn.Conv2d(attended_channels, width, 1)
        self.from_quarter = nn.Conv2d(quarter, width, 1)
        self.merge_quarter = _merge(width)
        self.from_half = nn.Conv2d(half, width, 1)
        self.merge_half = _merge(width)
        self.channels = width
        if decoder == "full":
            self.channels = width // 2
            self.to_full = nn.Conv2d(width, self.channels, 1)
            self.from_image = nn.Conv2d(in_bands, self.channels, 3, padding=1)
            self.merge_full = _merge(self.channels)
        self._full = decoder == "full"

    def forward(self, images: Tensor, pyramid: Pyramid, attended: Tensor) -> Tensor:
        """Images (B, in_bands, H, W), their features, and the attended ones at the positions of `pyramid.last`, to
        (B, channels, h, w) at the positions of `pyramid.half` or at every pixel."""
        quarter = self.from_quarter(pyramid.quarter)
        x = self.merge_quarter(quarter + enlarge(self.from_attended(attended), 2, like=quarter))
        half = self.from_half(pyramid.half)
        x = self.merge_half(half + enlarge(x, 2, like=half))
        if not self._full:
            return x
        return self.merge_full(self.from_image(images) + enlarge(self.to_full(x), 2, like=images))


def _merge(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


def upsample(distance: Tensor, *, height: int, width: int, stride: int) -> Tensor:
    """Bilinear interpolation from the features' resolution to the image's: (B, h, w) to (B, height, width).

    Position i lies at pixel stride · i, where the networks' layers centre it; beyond the last position its value is
    kept.
    """
    if stride == 1:
        return distance
    return enlarge(distance[:, None], stride, like=distance.new_empty((0, height, width)))[:, 0]

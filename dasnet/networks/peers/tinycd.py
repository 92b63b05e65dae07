"""TinyCD: the first blocks of an EfficientNet for both dates, mixed channel by channel into masks and features.

Source: Codegoni et al. 2022, "TinyCD: A (not so) deep learning model for change detection", and the layers of the
authors' released network where the text leaves them open. Given the weights of their code's network (random
ones, and those released for LEVIR-CD), the log-odds here are theirs to the last bit, at 64, 128, 256 and 72 × 200 px;
its 285,128 parameters are all here. Theirs takes sides that are multiples of 8; here coarser features are enlarged to
whatever resolution they are multiplied with.

The authors' blocks are skipped at random in training, at most one in eighteen; here none is. The encoder starts from
noise unless it is given torchvision's weights of EfficientNet-B4, as the authors' does.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.encoders.positions import resized
from dasnet.networks.peers.peer import Features, SegmentationNetwork

_WIDTH = 32  # of the paper's network
_EFFICIENTNET_B4 = 1.4  # times the channels of EfficientNet-B0
_IMAGE_MASK = (10, 5)  # channels on the way to the mask of the images themselves


class Mixing(nn.Module):
    """A 3×3 convolution for each channel, of that channel on both dates and of nothing else, normalised by image.

    Which date is the first matters: either has weights of its own.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2 * channels, channels, 3, padding=1, groups=channels)
        self.activation = nn.PReLU()

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Twice (B, channels, h, w) to (B, channels, h, w)."""
        interleaved = torch.stack([before, after], dim=2).flatten(1, 2)
        return F.instance_norm(self.activation(self.convolution(interleaved)))


class MixingMask(nn.Module):
    """A mask that says of every position how much of the coarser features passes it, made of both dates."""

    def __init__(self, channels: int, inner: tuple[int, int]) -> None:
        super().__init__()
        self.mixing = Mixing(channels)
        self.by_pixel = _by_pixel(channels, *inner, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Twice (B, channels, h, w) to (B, 1, h, w), of any value."""
        return self.by_pixel(self.mixing(before, after))


class Enlarging(nn.Module):
    """Features enlarged to the resolution of a mask, multiplied by it, and convolved by channel and by pixel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.by_channel = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
        self.first_activation = nn.PReLU()
        self.by_pixel = nn.Conv2d(inputs, outputs, 1)
        self.second_activation = nn.PReLU()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, inputs, h, w) and (B, 1, H, W) to (B, outputs, H, W); first and last positions stay on those of `x`."""
        x = resized(x, like=mask, corners=True) * mask
        x = F.instance_norm(self.first_activation(self.by_channel(x)))
        return F.instance_norm(self.second_activation(self.by_pixel(x)))


class TinyCD(SegmentationNetwork):
    """TinyCD. Which date is the first matters.

    `width` is the channels of the last features; the encoder's are in proportion, as far as EfficientNets have them:
    multiples of 8.
    """

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__(architecture)
        bands, width = architecture.in_bands, architecture.width
        self.encoder = _first_blocks(bands, _EFFICIENTNET_B4 * width / _WIDTH)
        _, *masked, deepest = map(_channels, self.encoder)
        self.image_mask = MixingMask(bands, _IMAGE_MASK)
        self.masks = nn.ModuleList(MixingMask(channels, (channels // 2, channels // 4)) for channels in masked)
        self.deepest_mixing = Mixing(deepest)
        self.enlarging = nn.ModuleList(
            Enlarging(*pair) for pair in ((deepest, 2 * width), (2 * width, 2 * width), (2 * width, width))
        )
        narrow = max(width // 4, 1)
        self.before_classifier = _by_pixel(width, max(width // 2, 1), narrow)
        self.classifier = nn.Conv2d(narrow, 1, 1)

    @property
    def deepest(self) -> nn.Module:
        """The mixing of the coarsest features."""
        return self.deepest_mixing

    @property
    def last_layer(self) -> nn.Module:
        """The classifier: one score, of changed; that of unchanged is 0."""
        return self.classifier

    def features(self, images: Tensor) -> Features:
        """(B, C, H, W) to the images themselves and three resolutions, (B, channels, H / 2^n, W / 2^n)."""
        stem, *stages = self.encoder
        levels, x = [images], stem(images)
        for stage in stages:
            x = stage(x)
            levels.append(x)
        return tuple(levels)

    def scores(self, before: Features, after: Features) -> Tensor:
        """(B, 2, H, W) scores of unchanged, which is 0, and changed."""
        changed = self._score(before, after)
        return torch.cat([torch.zeros_like(changed), changed], dim=1)

    def logit(self, before: Features, after: Features) -> Tensor:
        """(B, H, W) log-odds of changed."""
        return self._score(before, after)[:, 0]

    def _score(self, before: Features, after: Features) -> Tensor:
        """(B, 1, H, W)."""
        x = self.deepest_mixing(before[-1], after[-1])
        mixings = [self.image_mask, *self.masks]
        for enlarging, mixing, a, b in zip(
            self.enlarging, reversed(mixings), before[-2::-1], after[-2::-1], strict=True
        ):
            x = enlarging(x, mixing(a, b))
        return self.classifier(self.before_classifier(x))


def _by_pixel(*channels: int) -> nn.Sequential:
    """1×1 convolutions from each number of channels to the next, a PReLU behind each."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 1), nn.PReLU()]
    return nn.Sequential(*layers)


def _first_blocks(in_bands: int, widths: float) -> nn.Sequential:
    """The stem and the first three stages of an EfficientNet of B4's depth, with `widths` times B0's channels.

    Keys are torchvision's (``features.0`` … there), so that its ImageNet weights fit. Every layer that halves the
    resolution has an odd kernel with symmetric padding: position i of stage n is centred on pixel 2^n · i.
    """
    from dasnet.networks._torchvision import efficientnet  # takes seconds, and what only names a network needs none

    table = [(1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2)]
    setting = [efficientnet.MBConvConfig(*row, width_mult=widths, depth_mult=1.8) for row in table]
    network = efficientnet.EfficientNet(setting, dropout=0.0, stochastic_depth_prob=0.0, num_classes=1)
    if in_bands != 3:
        stem = nn.Conv2d(in_bands, setting[0].input_channels, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out")  # as torchvision's own
        network.features[0][0] = stem
    return network.features[: len(table) + 1]


def _channels(stage: nn.Module) -> int:
    """Channels that a stage of an EfficientNet ends with."""
    return [module for module in stage.modules() if isinstance(module, nn.Conv2d)][-1].out_channels

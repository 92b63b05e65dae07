"""BIT: each date is summed up by a few tokens, which a transformer relates and which then refine every position.

Source: Chen, Qi and Shi 2021, "Remote sensing image change detection with transformers", and the layers of the authors'
released network (``base_transformer_pos_s4_dd8``: ResNet18 up to its fourth stage, four tokens a date, one layer of
encoder, eight of decoder) where the text leaves them open. Given the weights of their code's network, random ones, the
scores here are theirs to 5e-7, at 64, 128, 256 and 72 × 200 px; the 3,495,778 parameters that take part there are all
here (it also holds ResNet18's last stage, which it leaves out).

Theirs takes sides that are multiples of 8; here what lies beyond the image is cut off. The encoder starts from
noise unless it is given torchvision's or timm's weights of ResNet18, as the authors' does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.encoders.positions import resized
from dasnet.networks.peers.peer import Features, SegmentationNetwork

_TOKENS = 4
_HEADS = 8
_ENCODER_LAYERS, _DECODER_LAYERS = 1, 8


class Encoder(nn.Module):
    """ResNet18 without its last stage; the one before keeps the resolution.

    Keys are torchvision's, so that its ImageNet weights fit.
    """

    def __init__(self, in_bands: int, width: int) -> None:
        super().__init__()
        from dasnet.networks._torchvision import resnet  # takes seconds, and what only names a network needs none

        def stage(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
            shortcut = None
            if inputs != outputs:
                convolution = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
                shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
            first = resnet.BasicBlock(inputs, outputs, stride=stride, downsample=shortcut)
            return nn.Sequential(first, resnet.BasicBlock(outputs, outputs))

        self.conv1 = nn.Conv2d(in_bands, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(width, width, stride=1)
        self.layer2 = stage(width, 2 * width, stride=2)
        self.layer3 = stage(2 * width, 4 * width, stride=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 4 width, ⌈H/8⌉, ⌈W/8⌉)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        return self.layer3(self.layer2(self.layer1(x)))


class Tokenizer(nn.Module):
    """Each token is a mean of all positions' features, with weights that a 1×1 convolution gives every position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Conv2d(channels, _TOKENS, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, tokens, channels)."""
        weights = self.attention(x).flatten(2).softmax(dim=2)
        return weights @ x.flatten(2).transpose(1, 2)


class Layer(nn.Module):
    """A layer of a transformer that normalises first: attention, then two linear layers; each is added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 2 * channels * _HEADS
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, inner, bias=False)
        self.key = nn.Linear(channels, inner, bias=False)
        self.value = nn.Linear(channels, inner, bias=False)
        self.out = nn.Linear(inner, channels)
        self.last_norm = nn.LayerNorm(channels)
        self.last = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Positions or tokens (B, n, channels) that look at tokens (B, m, channels) to new ones (B, n, channels).

        As in the authors' code the products are scaled by the root of the channels, not of those of one head.
        """
        own, seen = self.norm(x), self.norm(tokens)
        query, key, value = (
            projected.unflatten(2, (_HEADS, -1)).transpose(1, 2)  # (B, heads, n or m, channels of a head)
            for projected in (self.query(own), self.key(seen), self.value(seen))
        )
        weights = (query @ key.transpose(2, 3) * x.shape[2] ** -0.5).softmax(dim=3)  # a few tokens: they are small
        x = x + self.out((weights @ value).transpose(1, 2).flatten(2))
        return x + self.last(self.last_norm(x))


class BIT(SegmentationNetwork):
    """BIT. Which date is the first matters, by what the encoder learns to add to the tokens of either alone."""

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__(architecture)
        width = architecture.width
        self.encoder = Encoder(architecture.in_bands, 2 * width)
        self.narrowing = nn.Conv2d(8 * width, width, 3, padding=1)
        self.tokenizer = Tokenizer(width)
        self.places = nn.Parameter(torch.randn(1, 2 * _TOKENS, width))
        self.relating = nn.ModuleList(Layer(width) for _ in range(_ENCODER_LAYERS))
        self.refining = nn.ModuleList(Layer(width) for _ in range(_DECODER_LAYERS))
        self.before_classifier = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.classifier = nn.Conv2d(width, 2, 3, padding=1)

    @property
    def last_layer(self) -> nn.Module:
        """The classifier."""
        return self.classifier

    def features(self, images: Tensor) -> Features:
        """(B, C, H, W) to the images themselves, by whose size the scores are cut, and (B, width, 2⌈H/8⌉, 2⌈W/8⌉)."""
        x = F.interpolate(self.encoder(images), scale_factor=2, mode="nearest")
        return images, self.narrowing(x)

    def scores(self, before: Features, after: Features) -> Tensor:
        """(B, 2, H, W) scores of unchanged and changed."""
        (images, first), (_, second) = before, after
        tokens = torch.cat([self.tokenizer(first), self.tokenizer(second)], dim=1) + self.places
        for layer in self.relating:
            tokens = layer(tokens, tokens)
        x = (self._refined(first, tokens[:, :_TOKENS]) - self._refined(second, tokens[:, _TOKENS:])).abs()
        x = resized(x, like=x.new_empty((0, 4 * x.shape[2], 4 * x.shape[3])))
        return self.classifier(self.before_classifier(x))[..., : images.shape[-2], : images.shape[-1]]

    def _refined(self, features: Tensor, tokens: Tensor) -> Tensor:
        """(B, width, h, w), after all positions have looked at their date's tokens (B, tokens, width)."""
        x = features.flatten(2).transpose(1, 2)
        for layer in self.refining:
            x = layer(x, tokens)
        return x.transpose(1, 2).unflatten(2, features.shape[2:])

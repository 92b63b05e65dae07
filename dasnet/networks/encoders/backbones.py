"""The encoders: an image in, features at a half, a quarter and an eighth of its resolution out.

In all, position i of the features is centred on pixel 8·i of the image (2·i and 4·i of the finer ones): every
layer that halves the resolution has an odd kernel with symmetric padding. No weights are downloaded.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from dasnet.errors import EncoderError
from dasnet.networks.architectures import timm_name
from dasnet.networks.encoders.patch_encoder import PatchEncoder, is_patch_transformer
from dasnet.networks.encoders.positions import Pyramid
from dasnet.networks.encoders.timm_encoder import TimmEncoder
from dasnet.networks.encoders.timm_network import timm_network


class ResNet50(nn.Module):
    """ResNet50 without down-sampling in its last two stages, which are dilated by 2 and 4 instead (as in the paper).

    Keys are torchvision's, so that its ImageNet weights fit.
    """

    channels = 2048
    pyramid_channels = (64, 256, 2048)

    def __init__(self, in_bands: int = 3) -> None:
        super().__init__()
        from dasnet.networks._torchvision import models  # takes seconds, and what only names a backbone needs none

        network = models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
        self.conv1 = _first_convolution(network.conv1, in_bands)
        self.bn1 = network.bn1
        self.relu = network.relu
        self.maxpool = network.maxpool
        self.layer1 = network.layer1
        self.layer2 = network.layer2
        self.layer3 = network.layer3
        self.layer4 = network.layer4

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_bands, H, W) to (B, 2048, ⌈H/8⌉, ⌈W/8⌉)."""
        return self.pyramid(x).last

    def pyramid(self, x: Tensor) -> Pyramid:
        """The same, with the features of the first convolution and of the first stage."""
        half = self.relu(self.bn1(self.conv1(x)))
        quarter = self.layer1(self.maxpool(half))
        return Pyramid(half, quarter, self.layer4(self.layer3(self.layer2(quarter))))


class VGG16(nn.Module):
    """VGG16's five convolution blocks as the DASNet authors released them.

    Pools are 3×3 with stride 2, padding 1 and ceil mode; the fourth keeps the resolution and the fifth block is dilated
    by 2, where the paper's text says only that the last pool is dropped. Keys are the authors' (``conv1.0`` …).
    """

    channels = 512
    pyramid_channels = (128, 256, 512)

    def __init__(self, in_bands: int = 3) -> None:
        super().__init__()
        pool = partial(nn.MaxPool2d, kernel_size=3, padding=1, ceil_mode=True)
        self.conv1 = _plain_block(in_bands, 64, layers=2)
        self.pool1 = pool(stride=2)
        self.conv2 = _plain_block(64, 128, layers=2)
        self.pool2 = pool(stride=2)
        self.conv3 = _plain_block(128, 256, layers=3)
        self.pool3 = pool(stride=2)
        self.conv4 = _plain_block(256, 512, layers=3)
        self.pool4 = pool(stride=1)
        self.conv5 = _plain_block(512, 512, layers=3, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_bands, H, W) to (B, 512, H/8 + 1, W/8 + 1) where H and W are multiples of 8."""
        return self.pyramid(x).last

    def pyramid(self, x: Tensor) -> Pyramid:
        """The same, with the features of the second and of the third block."""
        half = self.conv2(self.pool1(self.conv1(x)))
        quarter = self.conv3(self.pool2(half))
        return Pyramid(half, quarter, self.conv5(self.pool4(self.conv4(self.pool3(quarter)))))


class MobileNetV3(nn.Module):
    """MobileNetV3-Large up to its 112 channels, dilated after an eighth: an encoder for machines without a GPU.

    Not in the paper. Without the last stage, which at this resolution would take half of the time, it needs a fiftieth
    of ResNet50's multiplications. Keys are torchvision's (``features.0`` …), so that its ImageNet weights fit.
    """

    channels = 112
    pyramid_channels = (16, 24, 112)
    _HALF, _QUARTER = 2, 4  # layers after which the resolution is halved again

    def __init__(self, in_bands: int = 3) -> None:
        super().__init__()
        from dasnet.networks._torchvision import mobilenetv3

        # in, kernel, expanded, out, squeeze-and-excitation, activation, stride, dilation; a layer with a dilation keeps
        # the resolution whatever its stride.
        table = [
            (16, 3, 16, 16, False, "RE", 1, 1),
            (16, 3, 64, 24, False, "RE", 2, 1),
            (24, 3, 72, 24, False, "RE", 1, 1),
            (24, 5, 72, 40, True, "RE", 2, 1),
            (40, 5, 120, 40, True, "RE", 1, 1),
            (40, 5, 120, 40, True, "RE", 1, 1),
            (40, 3, 240, 80, False, "HS", 1, 1),
            (80, 3, 200, 80, False, "HS", 1, 2),
            (80, 3, 184, 80, False, "HS", 1, 2),
            (80, 3, 184, 80, False, "HS", 1, 2),
            (80, 3, 480, 112, True, "HS", 1, 2),
            (112, 3, 672, 112, True, "HS", 1, 2),
        ]
        setting = [mobilenetv3.InvertedResidualConfig(*row, width_mult=1.0) for row in table]
        features = mobilenetv3.MobileNetV3(setting, last_channel=1, num_classes=1).features[:-1]
        features[0][0] = _first_convolution(features[0][0], in_bands)
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_bands, H, W) to (B, 112, ⌈H/8⌉, ⌈W/8⌉)."""
        return self.features(x)

    def pyramid(self, x: Tensor) -> Pyramid:
        """The same, with the last features at a half and at a quarter of the resolution."""
        half = self.features[: self._HALF](x)
        quarter = self.features[self._HALF : self._QUARTER](half)
        return Pyramid(half, quarter, self.features[self._QUARTER :](quarter))


BACKBONES: dict[str, type[ResNet50] | type[VGG16] | type[MobileNetV3]] = {
    "resnet50": ResNet50,
    "vgg16": VGG16,
    "mobilenet_v3": MobileNetV3,
}
"""The encoders with a name of their own."""

Encoder = ResNet50 | VGG16 | MobileNetV3 | TimmEncoder | PatchEncoder


def build_encoder(backbone: str, in_bands: int) -> Encoder:
    """An encoder with fresh weights, by its own name or ``timm:NAME``.

    Raises:
        EncoderError: timm has no such network, or it gives no features.
    """
    name = timm_name(backbone)
    if name is None:
        return BACKBONES[backbone](in_bands)
    with torch.device("meta"):  # shapes alone: this takes no time
        blank = timm_network(name, num_classes=0)
    return PatchEncoder(name, in_bands) if is_patch_transformer(blank) else TimmEncoder(name, in_bands)


def require_encoder(backbone: str, *, in_bands: int, side: int) -> None:
    """Refuse an encoder of timm that cannot look at images of `side` × `side` px; mostly without computing anything.

    Raises:
        EncoderError: it cannot, or there is none of that name.
    """
    if timm_name(backbone) is None:
        return
    failure: Exception | None = None
    for device in ("meta", "cpu"):  # shapes alone; a network whose layers cannot do without numbers has them
        try:
            with torch.device(device), torch.inference_mode():
                build_encoder(backbone, in_bands).eval()(torch.zeros(1, in_bands, side, side))
        except EncoderError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            failure = error
        else:
            return
    raise EncoderError(f"the encoder {backbone} cannot look at windows of {side} × {side} px: {failure}") from failure


def _plain_block(inputs: int, outputs: int, *, layers: int, dilation: int = 1) -> nn.Sequential:
    modules: list[nn.Module] = []
    for layer in range(layers):
        channels = inputs if layer == 0 else outputs
        modules += [nn.Conv2d(channels, outputs, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)]
    return nn.Sequential(*modules)


def _first_convolution(convolution: nn.Conv2d, in_bands: int) -> nn.Conv2d:
    """The same convolution for another number of bands, initialised as torchvision initialises it."""
    if in_bands == convolution.in_channels:
        return convolution
    assert convolution.padding_mode == "zeros" and isinstance(convolution.padding, tuple)
    first = nn.Conv2d(
        in_bands,
        convolution.out_channels,
        kernel_size=(convolution.kernel_size[0], convolution.kernel_size[1]),
        stride=(convolution.stride[0], convolution.stride[1]),
        padding=(convolution.padding[0], convolution.padding[1]),
        bias=convolution.bias is not None,
    )
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    if first.bias is not None:
        torch.nn.init.zeros_(first.bias)
    return first

"""Any encoder that timm knows: its own levels of features, brought to a half, a quarter and an eighth of the image.

Source: the library timm (PyTorch image models); the levels are added as in feature pyramids (Lin et al. 2017).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.errors import EncoderError
from dasnet.networks.architectures import STRIDE
from dasnet.networks.encoders.positions import Pyramid, brought_to, enlarge, measured_offsets, with_symmetric_padding

_WIDTH = 128
"""Channels of the features at an eighth of the resolution."""
_STEM_WIDTH = 32
"""Channels of a level that the encoder itself does not have."""


class TimmEncoder(nn.Module):
    """A network of timm that gives features at several resolutions, whatever its strides.

    It keeps the strides that it was pretrained with. What lies at an eighth of the resolution and coarser is brought to
    an eighth by 1×1 convolutions and bilinear interpolation, and added; a level at a half or a quarter that it lacks is
    made by one convolution of the image. Positions are where the class of the other encoders has them: i at 8 · i. To
    that end padding is symmetric, also where the network was trained with TensorFlow's, and what even kernels move is
    moved back.

    Attributes:
        channels: of the features at an eighth.
        pyramid_channels: of those at a half, a quarter and an eighth.
        levels: (stride, offset, channels) of the network's own features, finest first.
    """

    channels = _WIDTH

    def __init__(self, name: str, in_bands: int = 3) -> None:
        """Build the network with fresh weights.

        Args:
            name: timm's, as ``tf_efficientnet_lite0``.

        Raises:
            EncoderError: no such network, or one without features at several resolutions.
        """
        super().__init__()
        self.model = _features_of(name, in_bands)
        with_symmetric_padding(self.model)
        strides, channels = self.model.feature_info.reduction(), self.model.feature_info.channels()
        # the last of several levels with one stride has seen most
        self._chosen = [i for i, stride in enumerate(strides) if stride not in strides[i + 1 :]]
        strides = [strides[i] for i in self._chosen]
        if next(self.model.parameters()).is_meta:  # shapes alone are asked for
            offsets = [0.0] * len(strides)
        else:
            offsets = measured_offsets(self.model, strides, in_bands=in_bands, select=self._selected)
        self.levels = list(zip(strides, offsets, (channels[i] for i in self._chosen), strict=True))
        self.laterals = nn.ModuleDict(
            {str(stride): _lateral(width) for stride, _, width in self.levels if stride >= STRIDE}
        )
        if not self.laterals:
            raise EncoderError(f"timm:{name} has no features at an eighth of the resolution or coarser, only {strides}")
        own = {stride: width for stride, _, width in self.levels}
        self.stems = nn.ModuleDict({str(stride): _stem(in_bands, stride) for stride in (2, 4) if stride not in own})
        self.pyramid_channels = (own.get(2, _STEM_WIDTH), own.get(4, _STEM_WIDTH), _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_bands, H, W) to (B, 128, ⌈H/8⌉, ⌈W/8⌉)."""
        return self.pyramid(x).last

    def pyramid(self, x: Tensor) -> Pyramid:
        """The same, with the features at a half and at a quarter of the resolution."""
        deepest = max(stride for stride, _, _ in self.levels)
        rows, cols = (-side % deepest for side in x.shape[-2:])
        whole = F.pad(x, (0, cols, 0, rows)) if rows or cols else x  # many networks take whole steps alone
        features = dict(zip((stride for stride, _, _ in self.levels), self._selected(self.model(whole)), strict=True))
        offsets = {stride: offset for stride, offset, _ in self.levels}
        fine = {
            stride: self._on_positions(features[stride], stride, offsets[stride], stride, x)
            if stride in features
            else self.stems[str(stride)](x)
            for stride in (2, 4)
        }
        last = None
        for key, lateral in self.laterals.items():
            stride = int(key)
            part = self._on_positions(lateral(features[stride]), stride, offsets[stride], STRIDE, x)
            last = part if last is None else last + part
        assert last is not None
        return Pyramid(fine[2], fine[4], F.relu(last))

    def _selected(self, outputs: Any) -> list[Tensor]:
        return [outputs[i] for i in self._chosen]

    @staticmethod
    def _on_positions(level: Tensor, stride: int, offset: float, step: int, image: Tensor) -> Tensor:
        """A level with one position each `step` pixels of the image, the first of them at its first pixel."""
        rows, cols = (-(-side // step) for side in image.shape[-2:])
        if offset == 0 and stride % step == 0:
            fine = level if stride == step else enlarge(level, stride // step, like=image.new_empty((rows, cols)))
            return fine[..., :rows, :cols]
        return brought_to(level, stride=stride, offset=offset, step=step, rows=rows, cols=cols)


def _features_of(name: str, in_bands: int) -> Any:
    from dasnet.networks._timm import timm  # takes a second, and what only names an encoder needs none

    if not timm.is_model(name):
        raise EncoderError(f"timm {timm.__version__} has no network called {name!r}")
    try:
        return timm.create_model(name, pretrained=False, features_only=True, in_chans=in_bands)
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        raise EncoderError(f"timm:{name} gives no features at several resolutions: {error}") from error


def _lateral(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, _WIDTH, 1, bias=False), nn.BatchNorm2d(_WIDTH))


def _stem(in_bands: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_bands, _STEM_WIDTH)[: stride // 2]:
        convolution = nn.Conv2d(channels, _STEM_WIDTH, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(_STEM_WIDTH), nn.ReLU()]
    return nn.Sequential(*layers)


def normalisation_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of red, green and blue in [0, 1] that a network's pretrained weights want.

    Raises:
        EncoderError: no such network.
    """
    from dasnet.networks._timm import timm

    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise EncoderError(f"timm {timm.__version__} has no network called {name!r}")
    return tuple(config.mean), tuple(config.std)

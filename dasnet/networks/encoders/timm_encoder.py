"""Any encoder that timm knows: its own levels of features, brought to a half, a quarter and an eighth of the image.

Source: the library timm (PyTorch image models); the levels are added as in feature pyramids (Lin et al. 2017).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.errors import EncoderError
from dasnet.networks.architectures import STRIDE
from dasnet.networks.encoders.positions import Pyramid, brought_to, enlarge, measured_offsets, with_symmetric_padding
from dasnet.networks.encoders.timm_network import STEM_WIDTH, WIDTH, lateral, stem, timm_network


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

    channels = WIDTH

    def __init__(self, name: str, in_bands: int = 3) -> None:
        """Build the network with fresh weights.

        Args:
            name: timm's, as ``tf_efficientnet_lite0``.

        Raises:
            EncoderError: no such network, or one without features at several resolutions or for images of any size.
        """
        super().__init__()
        self.model = _features_of(name, in_bands)
        channels = self.model.feature_info.channels()
        strides = _strides(self.model)
        if next(self.model.parameters()).is_meta:  # shapes alone are asked for
            offsets: tuple[float, ...] = (0.0,) * len(strides)
        else:
            offsets = _offsets(name)
        own = {stride: channels[index] for stride, index in strides.items()}
        self.levels = [(stride, offset, own[stride]) for stride, offset in zip(strides, offsets, strict=True)]
        self.laterals = nn.ModuleDict(
            {str(stride): lateral(width) for stride, _, width in self.levels if stride >= STRIDE}
        )
        if not self.laterals:
            raise EncoderError(
                f"timm:{name} has no features at an eighth of the resolution or coarser, only {list(strides)}"
            )
        self.stems = nn.ModuleDict({str(stride): stem(in_bands, stride) for stride in (2, 4) if stride not in own})
        self.pyramid_channels = (own.get(2, STEM_WIDTH), own.get(4, STEM_WIDTH), WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_bands, H, W) to (B, 128, ⌈H/8⌉, ⌈W/8⌉)."""
        return self.pyramid(x).last

    def pyramid(self, x: Tensor) -> Pyramid:
        """The same, with the features at a half and at a quarter of the resolution."""
        deepest = max(stride for stride, _, _ in self.levels)
        rows, cols = (-side % deepest for side in x.shape[-2:])
        whole = F.pad(x, (0, cols, 0, rows)) if rows or cols else x  # many networks take whole steps alone
        features = dict(zip((stride for stride, _, _ in self.levels), _selected(self.model, whole), strict=True))
        offsets = {stride: offset for stride, offset, _ in self.levels}
        fine = {
            stride: self._on_positions(features[stride], stride, offsets[stride], stride, x)
            if stride in features
            else self.stems[str(stride)](x)
            for stride in (2, 4)
        }
        last = None
        for key, convolution in self.laterals.items():
            stride = int(key)
            part = self._on_positions(convolution(features[stride]), stride, offsets[stride], STRIDE, x)
            last = part if last is None else last + part
        assert last is not None
        return Pyramid(fine[2], fine[4], F.relu(last))

    @staticmethod
    def _on_positions(level: Tensor, stride: int, offset: float, step: int, image: Tensor) -> Tensor:
        """A level with one position each `step` pixels of the image, the first of them at its first pixel."""
        rows, cols = (-(-side // step) for side in image.shape[-2:])
        if offset == 0 and stride % step == 0:
            fine = level if stride == step else enlarge(level, stride // step, like=image.new_empty((rows, cols)))
            return fine[..., :rows, :cols]
        return brought_to(level, stride=stride, offset=offset, step=step, rows=rows, cols=cols)


def _features_of(name: str, in_bands: int) -> Any:
    settings = {"features_only": True, "in_chans": in_bands}
    try:
        try:
            network = timm_network(name, strict_img_size=False, **settings)  # Swin's kind would take one size alone
        except TypeError:
            network = timm_network(name, **settings)
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        raise EncoderError(f"timm:{name} gives no features at several resolutions: {error}") from error
    with_symmetric_padding(network)
    return network


def _strides(network: Any) -> dict[int, int]:
    """Each stride that a network has features at, finest first, with the index of the last of them, which saw most."""
    return {stride: index for index, stride in enumerate(network.feature_info.reduction())}


def _selected(network: Any, images: Tensor) -> list[Tensor]:
    """One level of features for each stride, (B, C, h, w)."""
    outputs = network(images)
    levels = [outputs[index] for index in _strides(network).values()]
    is_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
    return [level.permute(0, 3, 1, 2) for level in levels] if is_last else levels


@cache
def _offsets(name: str) -> tuple[float, ...]:
    """The offset of each of its levels: measured once in a process, for it takes seconds where kernels are even."""
    try:
        # gradients are needed whatever it is built for, and nobody's random numbers are used up
        with torch.inference_mode(False), torch.device("cpu"), torch.random.fork_rng(devices=[]):
            network = _features_of(name, 1)
            strides = list(_strides(network))
            offsets = measured_offsets(network, strides, in_bands=1, select=_selected)
    except EncoderError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        raise EncoderError(
            f"timm:{name} takes images of the size alone that it was trained on, not windows of any size ({error})"
        ) from error
    if any(abs(offset) > stride / 2 for stride, offset in zip(strides, offsets, strict=True)):
        raise EncoderError(
            f"where the features of timm:{name} lie in the image cannot be found: {offsets} px for strides {strides}"
        )
    return tuple(offsets)

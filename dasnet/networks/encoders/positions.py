"""Where features lie in the image: found from a network's layers, and brought onto the positions that are wanted.

A level of features has a stride and an offset: position i is centred on pixel stride · i + offset. An odd kernel with
symmetric padding has the offset 0; patches of p pixels, as in ConvNeXt's first layer, have (p − 1) / 2; TensorFlow's
SAME padding has one that depends on the size of the image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_SIDE = 256
"""Pixels of the image on which offsets are measured."""
_NEARER = 2
"""Offsets are multiples of one half: of a pixel, as odd and even kernels are centred."""


class Pyramid(NamedTuple):
    """Features of images (B, in_bands, H, W), each (B, C, h, w) with positions `half` 2, `quarter` 4 and `last` 8 px
    apart; the channels of all three are the backbone's `pyramid_channels`."""

    half: Tensor
    quarter: Tensor
    last: Tensor


def with_symmetric_padding(module: nn.Module) -> None:
    """Replace layers that pad as TensorFlow does by the same layers padded alike on both sides, in place.

    SAME pads an image of even side by one pixel more at its end than at its beginning, so that each layer that halves
    the resolution moves its positions by half a step: a stride of 32 is off by 7 px or more, and by another number for
    an odd side.
    """
    for name, child in list(module.named_children()):
        kind = type(child).__name__
        if kind == "Conv2dSame":
            assert isinstance(child, nn.Conv2d)
            setattr(module, name, _symmetric_convolution(child))
        elif kind in ("MaxPool2dSame", "AvgPool2dSame"):
            assert isinstance(child, nn.MaxPool2d | nn.AvgPool2d)
            kernel, stride = _one(child.kernel_size), _one(child.stride)
            pool: nn.Module = nn.MaxPool2d(kernel, stride, (kernel - 1) // 2)
            if isinstance(child, nn.AvgPool2d):
                pool = nn.AvgPool2d(kernel, stride, (kernel - 1) // 2, count_include_pad=False)
            setattr(module, name, pool)
        else:
            with_symmetric_padding(child)


def measured_offsets(
    features: nn.Module,
    strides: Sequence[int],
    *,
    in_bands: int,
    select: Callable[[nn.Module, Tensor], Sequence[Tensor]],
) -> list[float]:
    """The offset of each level of features, pixels: what the gradient of one position says of its centre.

    Every kernel is made symmetric and random, and maxima averages, and attention adds nothing, on a copy: then the
    influence of the image on a position is symmetric around its centre, whatever the layers do between. Where every
    layer that lowers the resolution has an odd kernel in the middle of its padding, offsets are 0 and nothing needs to
    be computed.

    Args:
        features: images (B, in_bands, H, W) to its levels.
        strides: of each level, pixels.
        select: a network and images to the levels.
    """
    if all(_is_centred(module) for module in features.modules()):
        return [0.0] * len(strides)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        blank = copy.deepcopy(features).double().eval()
        _made_symmetric(blank)
        image = torch.full((1, in_bands, _SIDE, _SIDE), 1e-2, dtype=torch.float64, requires_grad=True)
        offsets = []
        for stride, level in zip(strides, select(blank, image), strict=True):
            index = _SIDE // (2 * stride)
            # not their plain sum, which is constant after a normalisation over channels
            features_there = level[0, :, index, index] @ torch.randn(level.shape[1], dtype=torch.float64)
            (influence,) = torch.autograd.grad(features_there, image, retain_graph=True)
            along = influence[0].square().sum(dim=(0, 2))
            centre = float((along * torch.arange(_SIDE)).sum() / along.sum())
            offsets.append(round(_NEARER * (centre - stride * index)) / _NEARER)
    return offsets


def _is_centred(module: nn.Module) -> bool:
    """Whether a layer leaves position i where it is, or on every second, third … of the positions that it is given."""
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) or _one(module.stride) == 1:
        return True
    kernel, padding = _one(module.kernel_size), module.padding
    dilation = 1 if isinstance(module, nn.AvgPool2d) else _one(module.dilation)
    return not isinstance(padding, str) and kernel % 2 == 1 and _one(padding) == (kernel - 1) // 2 * dilation


def enlarge(x: Tensor, factor: int, *, like: Tensor) -> Tensor:
    """Bilinear interpolation of (B, C, h, w) to the rows and columns of `like`: position i comes to lie at factor · i.

    Beyond the last position its value is kept; positions beyond `like` are cut off.
    """
    rows, cols = x.shape[-2:]
    height, width = like.shape[-2:]
    if x.is_cuda and x.requires_grad:
        # the gradient of torch's own interpolation, made to sum in one order, sorts all its indices
        return brought_to(x, stride=factor, offset=0, step=1, rows=height, cols=width)
    size = (factor * (rows - 1) + 1, factor * (cols - 1) + 1)
    fine = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
    return grown_to(fine, like)[..., :height, :width]


def grown_to(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) at least as high and wide as `like`: beyond the last row and column their values are kept.

    Not by padding: compiled for a CPU, the gradient of one that replicates has strides that torch 2.13 does not expect.
    """
    for axis in (-2, -1):
        missing = like.shape[axis] - x.shape[axis]
        if missing > 0:
            last = x.narrow(axis, x.shape[axis] - 1, 1)
            x = torch.cat([x, *[last] * missing], dim=axis)
    return x


def brought_to(x: Tensor, *, stride: int, offset: float, step: int, rows: int, cols: int) -> Tensor:
    """Bilinear interpolation of (B, C, h, w), position i at stride · i + offset, to (B, C, rows, cols) at step · i.

    Before the first and beyond the last position their values are kept.
    """
    weights = partial(_weights, stride=stride, offset=offset, step=step, device=x.device)
    return weights(x.shape[-2], rows).to(x.dtype) @ x @ weights(x.shape[-1], cols).to(x.dtype).T


def resized(x: Tensor, *, like: Tensor, corners: bool = False) -> Tensor:
    """Torch's bilinear interpolation of (B, C, h, w) to the rows and columns of `like`, in training on a GPU too.

    Args:
        corners: whether the first and last positions stay where they are (torch's ``align_corners``); else the outer
            edges of the first and last pixels do.
    """
    if x.is_cuda and x.requires_grad:  # as in :func:`enlarge`
        return resized_by_weights(x, rows=like.shape[-2], cols=like.shape[-1], corners=corners)
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=corners)


def resized_by_weights(x: Tensor, *, rows: int, cols: int, corners: bool) -> Tensor:
    """The same as two matrix products, whose gradients sum in one order: (B, C, h, w) to (B, C, rows, cols)."""

    def along(given: int, wanted: int) -> Tensor:
        if corners:
            return _weights(given, wanted, stride=max(wanted - 1, 1), offset=0, step=given - 1, device=x.device)
        return _weights(given, wanted, stride=wanted, offset=(wanted - given) / 2, step=given, device=x.device)

    return along(x.shape[-2], rows).to(x.dtype) @ x @ along(x.shape[-1], cols).to(x.dtype).T


@lru_cache(maxsize=64)
def _weights(given: int, wanted: int, *, stride: int, offset: float, step: int, device: torch.device) -> Tensor:
    """(wanted, given): what each wanted position takes of each given one."""
    with torch.inference_mode(False):  # kept for calls that need a gradient too
        at = ((torch.arange(wanted, device=device) * step - offset) / stride).clamp(0, given - 1)
        return (1 - (at[:, None] - torch.arange(given, device=device)).abs()).clamp(min=0)


def _made_symmetric(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.MaxPool2d):
            pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
            setattr(module, name, pool)
        elif isinstance(child, nn.Conv2d):
            weight = torch.rand(child.weight.shape, dtype=torch.float64) + 0.1
            weight = weight + weight.flip(-1)
            weight = weight + weight.flip(-2)
            # an average, so that nothing grows into where an activation has no slope
            child.weight = nn.Parameter(weight / weight.sum(dim=(1, 2, 3), keepdim=True))
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.BatchNorm2d):  # timm begins with branches that are left out
            nn.init.ones_(child.weight)
        _made_symmetric(child)
    if any(hasattr(module, name) for name in ("qkv", "kv")):
        # attention looks from a token at all others of a window: what is left is where the token itself lies
        for parameter in getattr(module, "proj", nn.Identity()).parameters():
            nn.init.zeros_(parameter)
    merge = getattr(module, "reduction", None)
    if isinstance(merge, nn.Linear) and merge.in_features % 4 == 0 and hasattr(module, "norm"):
        # Swin's 2 × 2 positions, one after the other along the channels
        one = torch.randn(merge.out_features, merge.in_features // 4, dtype=torch.float64)
        merge.weight = nn.Parameter(one.repeat(1, 4))


def _symmetric_convolution(same: nn.Conv2d) -> nn.Conv2d:
    """The same weights, padded by (kernel − 1) · dilation / 2 on both sides."""
    kernel, stride, dilation = ((values[0], values[1]) for values in (same.kernel_size, same.stride, same.dilation))
    padding = tuple((k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True))
    convolution = nn.Conv2d(
        same.in_channels,
        same.out_channels,
        kernel,
        stride=stride,
        padding=(padding[0], padding[1]),
        dilation=dilation,
        groups=same.groups,
        bias=same.bias is not None,
    )
    convolution.weight, convolution.bias = same.weight, same.bias
    return convolution


def _one(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]

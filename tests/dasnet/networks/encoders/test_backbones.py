"""The encoders' geometry."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from dasnet.networks._torchvision import models
from dasnet.networks.architectures import STRIDE
from dasnet.networks.decoder import PyramidDecoder
from dasnet.networks.encoders.backbones import BACKBONES, ResNet50
from dasnet.networks.encoders.positions import resized, resized_by_weights

NAMES = sorted(BACKBONES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bands", [1, 3, 6])
def test_features_stand_at_an_eighth_for_any_number_of_bands(name: str, bands: int) -> None:
    backbone = BACKBONES[name](bands).eval()
    with torch.inference_mode():
        features = backbone(torch.zeros(1, bands, 64, 96))
    beyond = 1 if name == "vgg16" else 0  # the authors' pools keep one position more
    assert features.shape == (1, backbone.channels, 64 // STRIDE + beyond, 96 // STRIDE + beyond)


def made_linear(module: nn.Module) -> None:
    """Constant positive weights, averages for maxima, nothing global: what is left is the geometry."""
    for name, child in module.named_children():
        if isinstance(child, nn.MaxPool2d):
            pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
            setattr(module, name, pool)
        elif type(child).__name__ == "SqueezeExcitation":
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.Conv2d):
            nn.init.constant_(child.weight, 1 / child.weight[0].numel())
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        else:
            made_linear(child)


@pytest.mark.parametrize(("level", "stride"), [("half", 2), ("quarter", 4), ("last", STRIDE)])
@pytest.mark.parametrize("name", NAMES)
def test_position_i_is_centred_on_pixel_stride_times_i(name: str, level: str, stride: int) -> None:
    backbone = BACKBONES[name](1).eval()
    made_linear(backbone)
    image = torch.ones(1, 1, 1024, 8, requires_grad=True)
    features = getattr(backbone.pyramid(image), level)
    assert features.shape[1] == dict(zip(("half", "quarter", "last"), backbone.pyramid_channels, strict=True))[level]
    features[0, :, 512 // stride, 0].sum().backward()
    assert image.grad is not None
    influence = image.grad[0, 0].double().sum(dim=1)
    assert influence[0] == influence[-1] == 0, "the receptive field must lie inside for its centre to mean anything"
    centre = float((influence * torch.arange(1024)).sum() / influence.sum())
    assert centre == pytest.approx(512, abs=1e-3)


@pytest.mark.parametrize(("resolution", "stride"), [("half", 2), ("full", 1)])
@pytest.mark.parametrize("name", NAMES)
def test_a_decoder_puts_position_i_on_pixel_stride_times_i(name: str, resolution: Any, stride: int) -> None:
    backbone = BACKBONES[name](1).eval()
    decoder = PyramidDecoder(
        resolution, in_bands=1, pyramid_channels=backbone.pyramid_channels, attended_channels=backbone.channels
    ).eval()
    made_linear(backbone)
    made_linear(decoder)
    image = torch.ones(1, 1, 1024, 8, requires_grad=True)
    pyramid = backbone.pyramid(image)
    for pixel in (512, 514):
        position = decoder(image, pyramid, pyramid.last)[0, :, pixel // stride, 0].sum()
        (influence,) = torch.autograd.grad(position, image, retain_graph=True)
        along = influence[0, 0].double().sum(dim=1)
        assert along[0] == along[-1] == 0
        assert float((along * torch.arange(1024)).sum() / along.sum()) == pytest.approx(pixel, abs=1e-3)


def test_imagenet_weights_fit_by_name() -> None:
    ours, theirs = ResNet50().state_dict(), models.resnet50(weights=None).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items() if not key.startswith("fc.")
    }
    light, full = BACKBONES["mobilenet_v3"]().state_dict(), models.mobilenet_v3_large(weights=None).state_dict()
    assert all(full[key].shape == value.shape for key, value in light.items())


def test_torchvision_imports_in_a_fresh_process() -> None:
    code = "import dasnet.networks._torchvision as t; print(t.models.resnet50.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "resnet50"


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(8, 10), (9, 23), (5, 5), (3, 4), (1, 7)])
def test_resizing_by_weights_is_torchs_interpolation(corners: bool, size: tuple[int, int]) -> None:
    """What a GPU trains by: values and gradients."""
    torch.manual_seed(2)
    x, slope = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, *size).double()
    expected = F.interpolate(x, size=size, mode="bilinear", align_corners=corners)
    found = resized_by_weights(x, rows=size[0], cols=size[1], corners=corners)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    one, other = (torch.autograd.grad((each * slope).sum(), x)[0] for each in (found, expected))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert torch.equal(resized(x, like=slope, corners=corners), expected)

"""TinyCD: its size, its encoder's positions, and its mixing, masks and enlarging written out by numpy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate, map_coordinates
from torch import nn

from dasnet.networks._torchvision import models
from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.methods import build_network
from dasnet.networks.peers.tinycd import Enlarging, Mixing, MixingMask, TinyCD

Array = NDArray[np.float64]


def network(width: int = 8, bands: int = 3) -> TinyCD:
    built = build_network(PeerArchitecture(method="tinycd", width=width, in_bands=bands)).eval()
    assert isinstance(built, TinyCD)
    return built


def test_parameters_are_as_many_as_published() -> None:
    """0.28 M in the paper; exactly, by EfficientNet-B4's first blocks as torchvision has them and the description."""
    blocks = models.efficientnet_b4(weights=None).features[:4]
    expected = sum(parameter.numel() for parameter in blocks.parameters())

    def by_pixel(*channels: int) -> int:
        return sum(a * b + b + 1 for a, b in pairwise(channels))

    def mixing(channels: int) -> int:
        return 2 * 9 * channels + channels + 1

    expected += mixing(3) + by_pixel(3, 10, 5, 1) + mixing(24) + by_pixel(24, 12, 6, 1)
    expected += mixing(32) + by_pixel(32, 16, 8, 1) + mixing(56)
    for inputs, outputs in ((56, 64), (64, 64), (64, 32)):
        expected += 9 * inputs + inputs + 1 + by_pixel(inputs, outputs)
    expected += by_pixel(32, 16, 8, 1) - 1  # no PReLU behind the classifier
    counted = sum(parameter.numel() for parameter in network(width=32).parameters())
    assert counted == expected == 285_128


def test_imagenet_weights_of_torchvisions_efficientnet_fit_by_name() -> None:
    """And with them the features are its features."""
    torch.manual_seed(1)
    theirs, ours = models.efficientnet_b4(weights=None).features.eval(), network(width=32)
    keys = ours.encoder.state_dict()
    ours.encoder.load_state_dict({name: value for name, value in theirs.state_dict().items() if name in keys})
    images = torch.randn(1, 3, 65, 48)
    _, *levels = ours.features(images)
    x = theirs[0](images)
    for stage, level in zip(theirs[1:4], levels, strict=True):
        x = stage(x)
        assert torch.equal(level, x)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_position_i_is_centred_on_pixel_stride_times_i(level: int) -> None:
    built = network(bands=1)
    for module in built.encoder.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.SiLU | nn.Sigmoid) or type(child).__name__ == "SqueezeExcitation":
                setattr(module, name, nn.Identity())
        if isinstance(module, nn.Conv2d):
            module.weight.data.fill_(1 / module.weight[0].numel())
    stride = 2**level
    image = torch.ones(1, 1, 512, 8, requires_grad=True)
    built.features(image)[level][0, :, 256 // stride, 0].sum().backward()
    assert image.grad is not None
    influence = image.grad[0, 0].double().sum(dim=1)
    assert influence[0] == influence[-1] == 0
    assert float((influence * torch.arange(512)).sum() / influence.sum()) == pytest.approx(256, abs=1e-3)


def normalised(x: Array) -> Array:
    """Each channel of (C, h, w) by its own mean and variance over the image."""
    centred = x - x.mean(axis=(1, 2), keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=(1, 2), keepdims=True) + 1e-5))


def rectified(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, slope * x)


def mixed(mixing: Mixing, before: Array, after: Array) -> Array:
    """Each channel by its own 3×3 on the first date, and another on the second; zeros around."""
    weight, bias = mixing.convolution.weight.double().detach().numpy(), mixing.convolution.bias
    assert bias is not None
    out = np.stack(
        [
            correlate(before[c], weight[c, 0], mode="constant") + correlate(after[c], weight[c, 1], mode="constant")
            for c in range(len(before))
        ]
    )
    out = out + bias.double().detach().numpy()[:, None, None]
    return normalised(rectified(out, mixing.activation.weight.item()))


def by_pixel(layers: nn.Sequential, x: Array) -> Array:
    for convolution, activation in zip(layers[::2], layers[1::2], strict=True):
        weight, bias = (p.double().detach().numpy() for p in convolution.parameters())
        x = np.einsum("oc,chw->ohw", weight[:, :, 0, 0], x) + bias[:, None, None]
        x = rectified(x, activation.weight.item())
    return x


def test_mixing_and_masks_are_their_equations() -> None:
    torch.manual_seed(2)
    before, after = np.random.default_rng(3).normal(size=(2, 6, 5, 7))
    mask = MixingMask(6, (3, 2)).double()
    for parameter in mask.parameters():
        parameter.data.normal_()
    dates = torch.from_numpy(before)[None], torch.from_numpy(after)[None]
    expected = mixed(mask.mixing, before, after)
    np.testing.assert_allclose(mask.mixing(*dates)[0].detach().numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(mask(*dates)[0].detach().numpy(), by_pixel(mask.by_pixel, expected), atol=1e-8)


@pytest.mark.parametrize(("height", "width"), [(8, 10), (7, 9)])
def test_enlarging_is_its_equations(height: int, width: int) -> None:
    """Bilinear between corners that stay corners, times the mask, by channel, by pixel."""
    torch.manual_seed(4)
    random = np.random.default_rng(5)
    x, mask = random.normal(size=(3, 4, 5)), random.normal(size=(1, height, width))
    enlarging = Enlarging(3, 2).double()
    rows, columns = np.meshgrid(np.linspace(0, 3, height), np.linspace(0, 4, width), indexing="ij")
    fine = np.stack([map_coordinates(channel, [rows, columns], order=1) for channel in x]) * mask
    weight, bias = (p.detach().numpy() for p in enlarging.by_channel.parameters())
    fine = np.stack([correlate(fine[c], weight[c, 0], mode="constant") + bias[c] for c in range(3)])
    fine = normalised(rectified(fine, enlarging.first_activation.weight.item()))
    weight, bias = (p.detach().numpy() for p in enlarging.by_pixel.parameters())
    fine = np.einsum("oc,chw->ohw", weight[:, :, 0, 0], fine) + bias[:, None, None]
    expected = normalised(rectified(fine, enlarging.second_activation.weight.item()))
    found = enlarging(torch.from_numpy(x)[None], torch.from_numpy(mask)[None])[0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_masks_are_multiplied_with_what_is_coarser_from_the_deepest_on() -> None:
    torch.manual_seed(6)
    built = network()
    masks = {}
    for number, mask in enumerate([built.image_mask, *built.masks]):
        mask.register_forward_hook(lambda *given, number=number: masks.update({number: given[2]}))
    given = []
    for enlarging in built.enlarging:
        enlarging.register_forward_pre_hook(lambda _, inputs: given.append(inputs[1]))
    before, after = (built.features(date) for date in torch.randn(2, 1, 3, 64, 48))
    built.logit(before, after)
    assert [tuple(mask.shape[2:]) for mask in given] == [(16, 12), (32, 24), (64, 48)]
    assert all(torch.equal(mask, masks[number]) for mask, number in zip(given, (2, 1, 0), strict=True))


def test_which_date_is_the_first_matters() -> None:
    torch.manual_seed(7)
    built = network()
    before, after = (built.features(date) for date in torch.randn(2, 1, 3, 64, 64))
    assert not torch.allclose(built.logit(before, after), built.logit(after, before), atol=1e-4)


def test_every_weight_learns() -> None:
    torch.manual_seed(8)
    built = network(bands=4).train()
    built.outputs(torch.randn(4, 4, 64, 64))[0].square().mean().backward()
    assert not [name for name, p in built.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]

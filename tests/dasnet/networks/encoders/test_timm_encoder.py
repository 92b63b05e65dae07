"""Encoders of timm: where their positions lie, and what is refused."""

from __future__ import annotations

import pytest
import torch

from dasnet.errors import EncoderError
from dasnet.networks.architectures import Architecture
from dasnet.networks.dasnet import DASNet
from dasnet.networks.encoders.positions import brought_to
from dasnet.networks.encoders.timm_encoder import TimmEncoder
from dasnet.networks.encoders.timm_network import normalisation_of
from dasnet.prediction.bundle import build_model, random_bundle
from dasnet.prediction.folding import fold_normalisation

FAMILIES = [
    "tf_efficientnet_lite0",
    "mobilenetv4_conv_small",
    "resnet18",
    "regnety_002",
    "resnet18d",
    "convnext_atto",
    "poolformer_s12",
]
ODD = FAMILIES[:4]
"""Those whose layers that lower the resolution have odd kernels, so that a pixel is the middle of a position."""


@pytest.mark.parametrize("name", ODD)
def test_what_is_moved_by_a_position_moves_the_features_by_a_position(name: str) -> None:
    """An object mirrored around pixel 8·i has features mirrored around position i: that is where position i lies."""
    torch.manual_seed(0)
    encoder = TimmEncoder(name).eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):  # a network that is the same seen in a mirror
            module.weight = torch.nn.Parameter((module.weight + module.weight.flip(-1)) / 2)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    side, position = 513, 32  # an odd side, so that its middle is a pixel, and mirrored borders fall on each other
    image = torch.zeros(1, 3, 64, side)
    spot = torch.rand(3, 12, 7)
    image[0, :, 20:32, 8 * position - 3 : 8 * position + 4] = spot + spot.flip(-1)
    with torch.inference_mode():
        seen = encoder.pyramid(image)
        blank = encoder.pyramid(torch.zeros_like(image))
    for level, nothing, step in zip(seen, blank, (2, 4, 8), strict=True):
        middle = 8 * position // step
        around = (level - nothing)[..., middle - 6 : middle + 7].double()
        assert float(around.abs().max()) > 0
        mirrored = around.flip(-1)
        assert float((around - mirrored).abs().max()) <= 0.02 * float(around.abs().max()), step


@pytest.mark.parametrize(
    ("name", "offsets"),
    [
        # patches of 4 px, then three times patches of 2: the middle of 4, 8, 16 and 32 px
        ("convnext_atto", {4: 1.5, 8: 3.5, 16: 7.5, 32: 15.5}),
        # the same by attention in windows and a linear map of 2 × 2 tokens
        ("swin_tiny_patch4_window7_224", {4: 1.5, 8: 3.5, 16: 7.5, 32: 15.5}),
        # 7 px padded by 2 instead of 3, then odd kernels
        ("poolformer_s12", {4: 1.0, 8: 1.0, 16: 1.0, 32: 1.0}),
    ],
)
def test_offsets_are_those_that_kernels_and_paddings_make(name: str, offsets: dict[int, float]) -> None:
    assert {stride: offset for stride, offset, _ in TimmEncoder(name).levels} == offsets


@pytest.mark.parametrize(
    ("stride", "offset", "step"), [(4, 1.5, 4), (8, 3.5, 8), (16, 7.5, 8), (14, 6.5, 8), (32, 1.0, 8)]
)
def test_a_level_brought_to_other_positions_says_where_they_are(stride: int, offset: float, step: int) -> None:
    own = stride * torch.arange(224 // stride) + offset  # each position knows its pixel
    level = own.expand(1, 1, len(own), len(own)).transpose(-1, -2) * 1000 + own
    there = brought_to(level, stride=stride, offset=offset, step=step, rows=224 // step, cols=224 // step)
    wanted = (step * torch.arange(224 // step)).clamp(min=own[0], max=own[-1])
    torch.testing.assert_close(there[0, 0], wanted[:, None] * 1000 + wanted, atol=0.1, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_any_number_of_bands_and_any_side(name: str) -> None:
    encoder = TimmEncoder(name, 5).eval()
    with torch.inference_mode():
        pyramid = encoder.pyramid(torch.randn(1, 5, 72, 100))
    assert [tuple(level.shape) for level in pyramid] == [
        (1, encoder.pyramid_channels[0], 36, 50),
        (1, encoder.pyramid_channels[1], 18, 25),
        (1, encoder.pyramid_channels[2], 9, 13),
    ]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("distance", ["l2", "learned"])
def test_folded_and_unfolded_networks_answer_alike(name: str, distance: str) -> None:
    bundle = random_bundle(Architecture(backbone=f"timm:{name}", decoder="half", distance=distance))  # type: ignore[arg-type]
    plain, folded = build_model(bundle), build_model(bundle)
    fold_normalisation(folded, in_bands=3)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(folded.features(images), plain.features(images), atol=1e-3, rtol=1e-2)
    names = [name for name, module in folded.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if name.startswith("tf_efficientnet"):
        assert not names


def test_normalisation_is_the_networks_own() -> None:
    assert normalisation_of("tf_efficientnet_lite0") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation_of("resnet18")[0] == pytest.approx((0.485, 0.456, 0.406))


def test_unknown_networks_are_refused() -> None:
    with pytest.raises(EncoderError, match="no network called 'resnet1000'"):
        DASNet(Architecture(backbone="timm:resnet1000"))
    with pytest.raises(ValueError, match="none of resnet50, vgg16, mobilenet_v3, and no timm:NAME"):
        Architecture(backbone="resnet18")


def test_the_first_network_of_a_process_begins_as_the_next() -> None:
    """What is measured once in a process takes no random numbers from the weights."""
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        weights.append(TimmEncoder("resnet10t").state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())

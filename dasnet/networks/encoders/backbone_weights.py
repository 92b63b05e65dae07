"""Weights to start from: a local file in torchvision's layout (or our own) brought onto a network's backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dasnet.errors import TrainingError
from dasnet.networks.architectures import BackboneName
from dasnet.networks.encoders.backbones import BACKBONES

_LISTED = 8
_PREFIXES = ("module.", "model.", "backbone.")
# vgg16().features counts every layer; ours are five blocks that count their own
_VGG_LAYERS = {0: "conv1.0", 2: "conv1.2", 5: "conv2.0", 7: "conv2.2", 10: "conv3.0", 12: "conv3.2", 14: "conv3.4"} | {
    17: "conv4.0",
    19: "conv4.2",
    21: "conv4.4",
    24: "conv5.0",
    26: "conv5.2",
    28: "conv5.4",
}


def load_backbone(path: Path, backbone: BackboneName, *, in_bands: int) -> dict[str, Tensor]:
    """Weights of a backbone by the keys of a whole DASNet (``backbone.…``), float32.

    Args:
        path: a state dict, ``.safetensors`` or ``.pth`` (opened with ``weights_only``: nothing in it is executed), as
            torchvision's network of that name has it; a classifier on top, and stages that ours lacks, are left out.

    Raises:
        TrainingError: unreadable, or weights that do not fit; with keys and shapes.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: no such file of weights")
    weights = {_plain(key): value for key, value in _read(path).items()}
    if backbone == "vgg16":
        weights = {_vgg_key(key): value for key, value in weights.items()}
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in BACKBONES[backbone](in_bands).state_dict().items()}
    counters = {key for key in shapes if key.endswith("num_batches_tracked")}
    missing = sorted(set(shapes) - set(weights) - counters)
    wrong = [
        f"{key} is {tuple(weights[key].shape)} instead of {shape}"
        for key, shape in shapes.items()
        if key in weights and tuple(weights[key].shape) != shape
    ]
    if missing or wrong:
        unknown = sorted(set(weights) - set(shapes))
        raise TrainingError(
            f"{path} does not fit the backbone {backbone} of {in_bands} bands: missing {_some(missing)}; of another "
            f"shape {_some(wrong)}; not known {_some(unknown)}"
        )
    broken = [key for key in shapes if key in weights and not torch.isfinite(weights[key]).all()]
    if broken:
        raise TrainingError(f"{path} holds NaN or infinite weights: {_some(broken)}")
    return {
        f"backbone.{key}": weights[key].float() if weights[key].is_floating_point() else weights[key]
        for key in shapes
        if key in weights
    }


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt", device="cpu") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, UnpicklingError, EOFError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as weights: {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise TrainingError(f"{path} holds no state dict: a mapping of names to tensors is wanted")
    return content


def _plain(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _vgg_key(key: str) -> str:
    layer = re.fullmatch(r"(?:features\.)?(\d+)\.(weight|bias)", key)
    if layer and int(layer[1]) in _VGG_LAYERS:
        return f"{_VGG_LAYERS[int(layer[1])]}.{layer[2]}"
    return key


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return (", ".join(items[:_LISTED]) or "none") + more

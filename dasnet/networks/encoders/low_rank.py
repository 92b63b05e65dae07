"""Low-rank adapters: a pretrained transformer stays as it is, and a small matrix is added to each of its attention's.

Source: Hu et al. 2021 (LoRA): W + B·A, A of r rows drawn at random, B of r columns zero at first. Their factor α / r is
1 here: it does what the learning rate does.

A bundle stores W + B·A as one matrix: it is a network like any other, and needs neither adapters nor the weights that
it began from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dasnet.errors import EncoderError
from dasnet.networks.encoders.backbones import build_encoder

_ADAPTED = ("qkv", "q_proj", "k_proj", "v_proj", "proj")
"""Matrices of an attention, as timm's networks call them."""
_ORIGINAL, _ADDED = ".parametrizations.weight.original", ".parametrizations.weight.0."


class LowRank(nn.Module):
    """The matrix of `outputs` × `inputs` that is added: one of `rank` columns times one of `rank` rows."""

    def __init__(self, outputs: int, inputs: int, *, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(outputs, inputs) to the same."""
        return weight + self.b @ self.a


def add_adapters(encoder: nn.Module, *, rank: int) -> int:
    """Freeze the network of timm in an encoder and add adapters to every attention, in place; returns how many.

    Args:
        rank: r, at least 1 and smaller than the matrices.

    Raises:
        EncoderError: it has no attention, or narrower matrices.
    """
    network = getattr(encoder, "model", nn.Module())
    layers = [
        layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in _ADAPTED and "attn" in name.split(".")
    ]
    if not layers:
        raise EncoderError(
            f"adapters are of a transformer's attention, and {type(encoder).__name__} has none: set adapters to 0, and "
            "frozen or encoder_rate instead"
        )
    narrowest = min(min(layer.weight.shape) for layer in layers)
    if not 0 < rank < narrowest:
        raise EncoderError(f"adapters of rank {rank} are no smaller than the encoder's matrices, of {narrowest}")
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", LowRank(*layer.weight.shape, rank=rank))
    return len(layers)


def require_adapters(backbone: str, *, rank: int) -> None:
    """Refuse adapters that an encoder cannot have, without computing anything; raises EncoderError."""
    with torch.device("meta"):
        add_adapters(build_encoder(backbone, 3), rank=rank)


def without_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network's weights with every adapter added to its matrix; what has none is as it was."""
    result = {}
    for key, value in state.items():
        if key.endswith(_ORIGINAL):
            layer = key.removesuffix(_ORIGINAL)
            a, b = (state[f"{layer}{_ADDED}{part}"] for part in "ab")
            result[f"{layer}.weight"] = value + b @ a
        elif _ADDED not in key:
            result[key] = value
    return result

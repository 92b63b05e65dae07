"""The optimizer that a recipe asks for."""

from __future__ import annotations

import torch
from torch import nn

from dasnet.training.settings import OptimizerSettings

_MOMENTUM = 0.9


def optimizer_of(model: nn.Module, settings: OptimizerSettings, *, on_gpu: bool) -> torch.optim.Optimizer:
    """What takes steps by the gradients of all weights of `model`; whoever calls it sets the rate before each step."""
    weights, fused = model.parameters(), on_gpu or None
    rate, decay = settings.rate, settings.weight_decay
    if settings.update_rule == "sgd":
        return torch.optim.SGD(weights, lr=rate, weight_decay=decay, momentum=_MOMENTUM, fused=fused)
    kind = torch.optim.AdamW if settings.update_rule == "adamw" else torch.optim.Adam
    return kind(weights, lr=rate, weight_decay=decay, fused=fused)

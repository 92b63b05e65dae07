"""How a step is taken: the optimizer that a recipe asks for, the encoder apart from the rest, and averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dasnet.training.settings import OptimizerSettings

_MOMENTUM = 0.9
_ENCODER, _NEW = ("backbone.", "encoder."), ("backbone.laterals.", "backbone.stems.")
"""Names of an encoder's weights; those that bring the levels of any of timm's networks to ours, and are new."""


class Encoder:
    """What a network's encoder started from pretrained weights with, and how it is trained apart from the rest.

    A frozen encoder stands still: its weights are not moved and its normalisation is by the statistics that it has.

    Args:
        model: the whole network, as it is trained.
        loaded: names of weights and statistics that were loaded before training; of those the encoder's are meant.
        ranks: how many processes train the network.
    """

    def __init__(self, model: nn.Module, loaded: Collection[str], settings: OptimizerSettings, *, ranks: int) -> None:
        here = {name for name in loaded if name.startswith(_ENCODER) and not name.startswith(_NEW)}
        self._settings, self._ranks = settings, ranks
        self.weights = [weight for name, weight in model.named_parameters() if name in here and weight.requires_grad]
        self._normalisations = [
            module
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and f"{name}.running_mean" in here
        ]

    def begin_step(self, number: int, steps: int) -> bool:
        """What holds for step `number` (from 0) of so many; returns whether the encoder is frozen in it."""
        frozen = number < round(self._settings.frozen * steps)
        for module in self._normalisations:
            module.train(not frozen and self._settings.encoder_statistics == "batch")
        if self._ranks == 1:  # several ranks have agreed on who has a gradient
            for weight in self.weights:
                weight.requires_grad_(not frozen)
        return frozen

    def forget_gradients(self) -> None:
        """The encoder is not moved by the next step."""
        for weight in self.weights:
            weight.grad = None


def optimizer_of(
    model: nn.Module, settings: OptimizerSettings, *, encoder: Encoder | None = None, on_gpu: bool
) -> torch.optim.Optimizer:
    """What takes steps by the gradients of all weights of `model`.

    Whoever calls it sets the rate of each group before each step, by :func:`set_rate`.
    """
    weights: list[Any] = list(model.parameters())
    if encoder is not None and encoder.weights and settings.encoder_rate != 1:
        apart = {id(weight) for weight in encoder.weights}
        weights = [
            {"params": [weight for weight in weights if id(weight) not in apart], "share": 1.0},
            {"params": encoder.weights, "share": settings.encoder_rate},
        ]
    rate, decay, fused = settings.rate, settings.weight_decay, on_gpu or None
    if settings.update_rule == "sgd":
        return torch.optim.SGD(weights, lr=rate, weight_decay=decay, momentum=_MOMENTUM, fused=fused)
    kind = torch.optim.AdamW if settings.update_rule == "adamw" else torch.optim.Adam
    return kind(weights, lr=rate, weight_decay=decay, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, of which each group has its share."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def rising_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """An exponential average of weights that forgets the first of them soon: decay is (1 + n) / (10 + n) after n steps
    until it reaches `decay`. Without that, a training of 75 steps at 0.99 would be judged by half of its random start.
    """

    def update(averaged: Any, current: Any, steps: Tensor | int) -> None:
        n = int(steps)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, steps)

    return update

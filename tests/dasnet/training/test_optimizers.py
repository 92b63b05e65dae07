"""Steps of each rule against the rule written out, and that a training that was stopped goes on by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dasnet.training.directory import CHECKPOINT
from dasnet.training.optimizers import optimizer_of
from dasnet.training.recipes import recipe_named
from dasnet.training.settings import OptimizerSettings
from tests.dasnet.training.training_data import recipe, run_of

Vector = NDArray[np.float64]
RATES, DECAY = (0.1, 0.05, 0.02), 0.3


def written_out(rule: str, weight: Vector, gradients: list[Vector]) -> Vector:
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2; SGD with torch's momentum."""
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for step, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), start=1):
        if rule == "adamw":
            weight = weight * (1 - rate * DECAY)
        else:
            gradient = gradient + DECAY * weight
        if rule == "sgd":
            first = 0.9 * first + gradient
            weight = weight - rate * first
            continue
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        weight = weight - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return weight


@pytest.mark.parametrize("rule", ["adam", "adamw", "sgd"])
def test_steps_are_the_rule_written_out(rule: Any) -> None:
    random = np.random.default_rng(1)
    start, gradients = random.normal(size=5), [random.normal(size=5) for _ in RATES]
    model = nn.Linear(5, 1, bias=False).double()
    model.weight.data = torch.from_numpy(start[None].copy())
    settings = OptimizerSettings(update_rule=rule, rate=1.0, weight_decay=DECAY)
    optimizer = optimizer_of(model, settings, on_gpu=False)
    for rate, gradient in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        model.weight.grad = torch.from_numpy(gradient[None].copy())
        optimizer.step()
    np.testing.assert_allclose(model.weight.detach().numpy()[0], written_out(rule, start, gradients), rtol=1e-9)


@pytest.mark.parametrize("rule", ["adamw", "sgd"])
def test_a_stopped_training_goes_on_to_the_same_bits(rule: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 2, "update_rule": rule, "weight_decay": 1e-2, "schedule": "linear"}
    run_of(tmp_path / "whole", **options).run()
    run_of(tmp_path / "stopped", **options).run(stop_after=5)
    run_of(tmp_path / "stopped", **options).run()
    one, other = (torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "stopped"))
    assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())


def test_a_linear_rate_falls_to_nothing() -> None:
    falling = recipe(schedule="linear", rate=1.0)
    assert [falling.rate_at(step, 4) for step in range(4)] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_another_rule_is_another_training() -> None:
    one, other = recipe_named("cpu_small"), recipe_named("cpu_small", update_rule="sgd")
    assert "update_rule" not in one.identity() and other.identity()["update_rule"] == "sgd"
    assert json.dumps(one.identity()) != json.dumps(other.identity())

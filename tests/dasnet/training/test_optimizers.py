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

from dasnet.training.directory import CHECKPOINT, HISTORY
from dasnet.training.loop import TrainingRun
from dasnet.training.optimizers import optimizer_of
from dasnet.training.recipes import recipe_named
from dasnet.training.settings import OptimizerSettings
from tests.dasnet.training.training_data import recipe, run_of, run_two_ranks

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


def checkpoint(directory: Path) -> Any:
    return torch.load(directory / CHECKPOINT, weights_only=True)


def moved(run: TrainingRun) -> dict[str, float]:
    """How far each weight and statistic of the encoder is from where it started."""
    assert run.initial is not None
    state = checkpoint(run.directory)["model"]
    return {
        name: float((state[name] - value).abs().max())
        for name, value in run.initial.items()
        if value.is_floating_point()
    }


LITE = {"backbone": "timm:tf_efficientnet_lite0", "decoder": "half", "batch": 8, "epochs": 1}


def test_a_frozen_encoder_is_still_and_the_rest_is_not(tmp_path: Path) -> None:
    run = run_of(tmp_path, start=3, frozen=1.0, weight_decay=0.1, ema=0.9, **LITE)
    run.run()
    still = moved(run)
    new = {name for name in still if name.startswith(("backbone.laterals.", "backbone.stems."))}
    assert new and all(still[name] > 0 for name in new if name.endswith(("weight", "running_mean")))
    assert not any(still[name] for name in still.keys() - new)
    head = [name for name in checkpoint(tmp_path)["model"] if name.startswith("head.conv8")]
    whole = run_of(tmp_path / "whole", start=3, **LITE)
    whole.run()
    assert head and all(moved(whole)[name] > 0 for name in still if name.endswith(("weight", "running_mean")))


def test_an_encoder_is_frozen_for_a_share_of_the_steps(tmp_path: Path) -> None:
    settings = {**LITE, "batch": 4, "frozen": 0.5}  # two steps of four
    run = run_of(tmp_path, start=3, **settings)
    run.run(stop_after=2)
    assert not (tmp_path / CHECKPOINT).exists()  # no checkpoint within the epoch: see below what the steps did
    run.run()
    one = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    free = run_of(tmp_path / "free", start=3, **{**settings, "frozen": 0.0})
    free.run()
    other = [json.loads(line) for line in (tmp_path / "free" / HISTORY).read_text().splitlines()]
    # fewer weights have a gradient, and then all of them
    assert one[0]["gradient"] < other[0]["gradient"]
    states = checkpoint(tmp_path)["optimizer"]["state"], checkpoint(tmp_path / "free")["optimizer"]["state"]
    assert {int(state["step"]) for state in states[0].values()} == {2, 4}
    assert {int(state["step"]) for state in states[1].values()} == {4}


def test_statistics_are_kept_while_weights_move(tmp_path: Path) -> None:
    run = run_of(tmp_path, start=3, encoder_statistics="kept", **LITE)
    run.run()
    found = moved(run)
    own = {name for name in found if name.startswith("backbone.model.")}
    assert all(not found[name] for name in own if "running_" in name)
    assert all(found[name] > 0 for name in own if name.endswith("weight"))
    assert any(found[name] > 0 for name in found.keys() - own if "running_" in name)


def test_the_encoder_has_a_rate_of_its_own(tmp_path: Path) -> None:
    """By SGD and its first step, whose length is the rate times the gradient."""
    settings = {**LITE, "update_rule": "sgd", "rate": 1e-3, "samples_per_epoch": 8}
    slow, usual = (run_of(tmp_path / str(rate), start=3, encoder_rate=rate, **settings) for rate in (0.25, 1.0))
    slow.run()
    usual.run()
    one, other = moved(slow), moved(usual)
    for name in one:
        if name.endswith("weight") and other[name] > 1e-5:
            share = 0.25 if name.startswith("backbone.model.") else 1.0
            assert one[name] == pytest.approx(share * other[name], rel=0.02, abs=1e-7), name
    none = run_of(tmp_path / "none", encoder_rate=0.25, **settings)  # nothing was loaded: all is new
    none.run()
    assert len(checkpoint(tmp_path / "none")["optimizer"]["param_groups"]) == 1
    assert len(checkpoint(slow.directory)["optimizer"]["param_groups"]) == 2


def test_a_training_with_an_encoder_apart_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    options = {
        **LITE,
        "batch": 4,
        "epochs": 2,
        "encoder_rate": 0.3,
        "frozen": 0.7,
        "ema": 0.9,
        "warmup": 0.2,
        "clip": 1.0,
    }
    run_of(tmp_path / "whole", start=3, **options).run()
    run_of(tmp_path / "stopped", start=3, **options).run(stop_after=5)
    run_of(tmp_path / "stopped", start=3, **options).run()
    one, other = (checkpoint(tmp_path / name) for name in ("whole", "stopped"))
    assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())
    assert all(torch.equal(value, other["averaged"][key]) for key, value in one["averaged"].items())


def test_two_ranks_train_an_encoder_apart_as_one_process_does(tmp_path: Path) -> None:
    """timm's normalisation has an activation in it, and a frozen encoder no gradient to share."""
    options = {**LITE, "start": 3, "encoder_rate": 0.3, "frozen": 0.5, "clip": 1.0}
    run_of(tmp_path / "one", **options).run()
    run_two_ranks(tmp_path / "two", **options)
    one, two = (
        [json.loads(line) for line in (tmp_path / name / HISTORY).read_text().splitlines()] for name in ("one", "two")
    )
    assert [line["kind"] for line in one] == [line["kind"] for line in two] == ["step", "step", "epoch"]
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)
    assert two[0]["gradient"] == pytest.approx(one[0]["gradient"], rel=1e-3)
    assert two[1]["loss"] == pytest.approx(one[1]["loss"], rel=2e-2)


def test_settings_of_the_encoder_are_of_the_identity_where_they_change_something() -> None:
    plain = recipe_named("cpu_small").identity()
    assert not {"encoder_rate", "frozen", "encoder_statistics"} & plain.keys()
    for name, value in (("encoder_rate", 0.3), ("frozen", 0.1), ("encoder_statistics", "kept")):
        assert recipe_named("cpu_small", **{name: value}).identity() == {**plain, name: value}

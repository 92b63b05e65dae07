"""Training: exact to resume, the same on one rank and on two, and it stops before it does harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dasnet.errors import NonFiniteLossError, TrainingError
from dasnet.prediction.bundle import load_bundle
from dasnet.training.augmentation import Augmentation
from dasnet.training.directory import CHECKPOINT, HISTORY
from dasnet.training.loop import rising_average
from dasnet.training.recipes import Recipe, RecipeName, recipe_named
from dasnet.training.samples import Order, assemble, prefetched
from dasnet.training.trained_bundle import bundle_of
from tests.dasnet.training.training_data import Squares, recipe, run_of, run_two_ranks


def steps(directory: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (directory / HISTORY).read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]


def epochs(directory: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (directory / HISTORY).read_text().splitlines()]
    return [line for line in lines if line["kind"] == "epoch"]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {"ema": 0.9, "accumulate": 2, "clip": 1.0, "schedule": "cosine", "warmup": 0.2, "balance": 0.5},
    "vgg16": {"backbone": "vgg16", "head_channels": 8, "loss": "contrastive", "distance": "cosine", "schedule": "poly"},
}


def require_the_bits_of_a_run_that_was_never_stopped(directory: Path, recipe: Recipe, *, device: str = "cpu") -> None:
    """Two epochs of four steps, stopped after five: the checkpoint is that of the first, one step is taken again."""
    whole, parts = (replace(run_of(directory / name), recipe=recipe, device=device) for name in ("whole", "parts"))
    whole.run()
    stopped = parts.run(stop_after=5)
    assert (stopped.epoch, stopped.step) == (1, 1)
    ended = parts.run()
    assert ended.epoch == 2
    assert steps(directory / "parts") == steps(directory / "whole")
    keys = ("f1", "threshold", "loss", "eta", "gamma")
    assert [[e.get(k) for k in keys] for e in epochs(directory / "parts")] == [
        [e.get(k) for k in keys] for e in epochs(directory / "whole")
    ]
    one, other = (torch.load(directory / name / CHECKPOINT, weights_only=True)["model"] for name in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_resume_after_any_step_has_the_bits_of_a_run_that_was_never_stopped(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    require_the_bits_of_a_run_that_was_never_stopped(tmp_path, recipe(**options, epochs=2))


@pytest.mark.slow
def test_compiled_training_has_nearly_the_same_losses(tmp_path: Path) -> None:
    options = {"decoder": "half", "epochs": 1}
    run_of(tmp_path / "plain", **options).run()
    run_of(tmp_path / "compiled", **options, compile=True).run()
    plain, compiled = ([step["loss"] for step in steps(tmp_path / name)] for name in ("plain", "compiled"))
    assert len(compiled) == 4 and compiled == pytest.approx(plain, rel=1e-2)


KILLED = """
import sys
from pathlib import Path
import dasnet.training.loop as training
from tests.dasnet.training.training_data import run_of
training._CHECKPOINT_EVERY_S = 0.0  # a checkpoint after every step, so that a kill may fall into one
run_of(Path(sys.argv[1]), epochs=int(sys.argv[2])).run()
"""


def test_kill_nine_at_any_moment_and_the_curve_is_the_same_to_the_bit(tmp_path: Path) -> None:
    run_of(tmp_path / "whole", epochs=3).run()
    kills = 0
    for wait in (0.15, 0.4, 0.8):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "killed"), "3"], cwd=Path.cwd())
        history, seen = tmp_path / "killed" / HISTORY, len(steps(tmp_path / "killed")) if kills else 0
        while process.poll() is None:
            if history.exists() and history.read_bytes().count(b'"step"') > seen + 1:
                time.sleep(wait)
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 1
    run_of(tmp_path / "killed", epochs=3).run()
    assert steps(tmp_path / "killed") == steps(tmp_path / "whole")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"accumulate": 2, "clip": 0.5, "ema": 0.5}, id="accumulated"),
        pytest.param({"precision": "bfloat16"}, id="bfloat16", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_have_the_loss_of_one_process_with_the_same_global_batch(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Normalisation, dropout and the mean over labelled pixels are those of the whole batch."""
    options = {**options, "epochs": 2, "batch": 8}
    run_of(tmp_path / "one", **options).run()
    run_two_ranks(tmp_path / "two", **options)
    one, two = steps(tmp_path / "one"), steps(tmp_path / "two")
    assert len(one) == len(two) == 4
    # the first loss differs by rounding alone; what rounding makes of the weights grows from step to step
    coarse = options.get("precision") == "bfloat16"
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=2e-2 if coarse else 1e-5)
    assert two[0]["gradient"] == pytest.approx(one[0]["gradient"], rel=5e-2 if coarse else 1e-3)
    assert [s["loss"] for s in two] == pytest.approx([s["loss"] for s in one], rel=3e-1 if coarse else 5e-2)


def test_it_learns_squares(tmp_path: Path) -> None:
    run = run_of(tmp_path, epochs=14, batch=4)
    ended = run.run()
    assert ended.best_f1 > 0.7  # on squares it has not seen; 0.3 if all is called changed
    losses = [epoch["loss"] for epoch in epochs(tmp_path)]
    assert losses[-1] < 0.5 * losses[0]
    trained = bundle_of(run, tmp_path / "bundle.safetensors")
    bundle = load_bundle(tmp_path / "bundle.safetensors")
    assert trained.validation.f1 == pytest.approx(ended.best_f1, abs=0.02)  # rounded to half precision
    assert 0 < bundle.threshold < 1 and bundle.calibration.slope > 0
    assert trained.after.error < trained.before.error
    # the frozen threshold cuts distances where it cuts stored probabilities
    assert bundle.cut == pytest.approx(bundle.calibration.distance(bundle.threshold)) and 0 <= bundle.cut <= 2


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path: Path) -> None:
    run_of(tmp_path, epochs=1).run()
    before = torch.load(tmp_path / CHECKPOINT, weights_only=True)["model"]
    broken = Squares()
    broken.before = broken.before.astype(np.float32)
    broken.after = broken.after.astype(np.float32)
    broken.after[3] = np.nan
    run = run_of(tmp_path / "broken", source=broken, augmentation=Augmentation(flips=False), epochs=1)
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan in epoch 1, step \d, samples .*\b3\b"):
        run.run()
    assert not (tmp_path / "broken" / CHECKPOINT).exists()
    assert all(torch.isfinite(value).all() for value in before.values())


def test_early_stopping(tmp_path: Path) -> None:
    # a rate of nothing never gets better
    ended = run_of(tmp_path, epochs=9, rate=1e-12, patience=2).run()
    assert ended.epoch < 9 and ended.stopped == "validation F1 has not risen for 2 epochs"
    again = run_of(tmp_path, epochs=9, rate=1e-12, patience=2).run()
    assert again == ended


def test_bfloat16_trains(tmp_path: Path) -> None:
    ended = run_of(tmp_path, epochs=1, precision="bfloat16").run()
    assert ended.epoch == 1 and np.isfinite([s["loss"] for s in steps(tmp_path)]).all()


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run_of(tmp_path, epochs=1).run()
    with pytest.raises(TrainingError, match="belongs to another recipe"):
        run_of(tmp_path, epochs=1, rate=1e-3).run()


def test_validation_without_a_change_is_refused(tmp_path: Path) -> None:
    source = Squares()
    source.label[source.train :] = 0
    with pytest.raises(TrainingError, match="not one changed pixel in 6 validation samples"):
        run_of(tmp_path, source=source, epochs=1).run()


def test_a_loss_of_parts_is_the_loss_of_the_whole() -> None:
    """What accumulation and ranks rely on: parts divided by the pixels of the whole batch add up to its mean."""
    from dasnet.networks.dasnet import Distances

    torch.manual_seed(0)
    loss = recipe().loss_of(Squares().frequency)
    distances = Distances(*(torch.rand(4, 8, 8) * 2 for _ in range(3)))
    labels = torch.randint(0, 2, (4, 64, 64), dtype=torch.uint8)
    labels[0, :, :50] = 255
    pixels = (labels != 255).sum()
    parts = [loss(Distances(*(d[n : n + 2] for d in distances)), labels[n : n + 2], pixels=pixels) for n in (0, 2)]
    assert torch.isclose(sum(parts), loss(distances, labels))
    assert torch.isclose(loss.parts(distances, labels).sum(), loss(distances, labels))


def test_an_epoch_shows_every_sample_once_in_an_order_of_its_own() -> None:
    order = Order(recipe=recipe(), samples=np.arange(16), changed=np.arange(4))
    first, second = order.of_epoch(0), order.of_epoch(1)
    assert first.shape == (4, 4) and sorted(first.ravel()) == list(range(16))
    assert not np.array_equal(first, second) and np.array_equal(first, order.of_epoch(0))
    assert len({order.seed(e, s, p) for e in range(2) for s in range(4) for p in range(4)}) == 32


def test_balance_draws_changed_samples_as_often_as_asked() -> None:
    order = Order(recipe=recipe(balance=0.8, samples_per_epoch=8000), samples=np.arange(100), changed=np.arange(10))
    share = (order.of_epoch(0) < 10).mean()
    assert share == pytest.approx(0.8 + 0.2 * 0.1, abs=0.02)


@pytest.mark.parametrize(("workers", "ranks"), [(1, 1), (3, 2), (4, 4), (7, 4), (100, 4)])
def test_a_batch_is_spread_evenly_over_as_many_ranks_as_can_be(workers: int, ranks: int) -> None:
    assert recipe(batch=8, accumulate=2).sampling.most_ranks(workers) == ranks


def test_prefetching_keeps_the_order_and_reads_ahead_of_nobody() -> None:
    source = Squares()
    work = [([n, n + 1], [n, n]) for n in range(8)]
    found = list(prefetched(source, work, augmentation=Augmentation(crop=32), threads=3, ahead=2))
    assert [batch.indices for batch in found] == [(n, n + 1) for n in range(8)]
    alone = assemble(source, [5, 6], Augmentation(crop=32), [5, 5])
    assert torch.equal(alone.images, found[5].images) and torch.equal(alone.labels, found[5].labels)
    assert torch.get_num_threads() >= 1


def test_a_process_has_its_threads_and_kernels_back(tmp_path: Path) -> None:
    """It may be a worker that others have started, and use again."""

    def settings() -> tuple[int, bool, bool]:
        fills = torch.utils.deterministic.fill_uninitialized_memory
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), fills

    before = settings()
    within: list[tuple[int, bool, bool]] = []
    run = run_of(tmp_path, epochs=1)
    replace(run, threads=before[0] + 1, on_epoch=lambda *epoch: within.append(settings())).run()
    assert within == [(before[0] + 1, True, False)] and settings() == before


def test_rates_rise_and_fall() -> None:
    cosine = recipe(schedule="cosine", warmup=0.25, rate=1.0)
    assert [round(cosine.rate_at(step, 8), 3) for step in (0, 1, 2, 5)] == [0.5, 1.0, 1.0, 0.5]
    assert recipe(schedule="poly", rate=1.0).rate_at(4, 8) == pytest.approx(0.5**0.9)
    assert recipe(rate=1.0).rate_at(7, 8) == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_trains_as_the_cpu_does(tmp_path: Path, precision: str) -> None:
    run_of(tmp_path / "cpu", epochs=1).run()
    replace(run_of(tmp_path / "gpu", epochs=1, precision=precision), device="cuda:0").run()
    one, other = steps(tmp_path / "cpu"), steps(tmp_path / "gpu")
    assert other[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-3 if precision == "float32" else 5e-2)


ON_A_GPU: dict[str, Recipe] = {
    **{name: recipe(**options, epochs=2) for name, options in OPTIONS.items()},
    "bfloat16": recipe(epochs=2, precision="bfloat16"),
    "half": recipe(epochs=2, decoder="half"),
    "full": recipe(epochs=2, decoder="full", precision="bfloat16"),
    "resnet50": recipe(epochs=2, backbone="resnet50", precision="bfloat16"),
    **{
        name: recipe_named(name, epochs=2, batch=4, augmentation=Augmentation(crop=32))
        for name in get_args(RecipeName)
        if recipe_named(name).network.method != "dasnet"
    },
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("recipe", ON_A_GPU.values(), ids=ON_A_GPU)
def test_resume_on_a_gpu_has_the_bits_of_a_run_that_was_never_stopped(tmp_path: Path, recipe: Recipe) -> None:
    require_the_bits_of_a_run_that_was_never_stopped(tmp_path, recipe, device="cuda:0")


def test_averaged_weights_forget_their_random_start() -> None:
    average, plain = [torch.ones(1)], [torch.ones(1)]
    update, usual = rising_average(0.99), get_ema_multi_avg_fn(0.99)
    for step in range(1, 76):
        update(average, [torch.zeros(1)], step)
        usual(plain, [torch.zeros(1)], step)
    assert plain[0].item() == pytest.approx(0.99**75) and average[0].item() < 1e-6
    update(average, [torch.ones(1)], 10_000)
    assert average[0].item() == pytest.approx(0.01, rel=1e-3)

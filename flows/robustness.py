"""F1 of trained methods against the strength of pseudo-changes on the test split, over the cluster."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dasnet.bundle import load_bundle
from dasnet.errors import TrainingError
from dasnet.inference import DasnetPredictor
from dasnet.metrics import Confusion
from dasnet.pseudo_changes import STRENGTHS, pseudo_changed
from flows.comparison_config import CompareRequest, Training
from flows.console import current_reporter
from flows.failures import FailedBlocksError, reason_of
from flows.fanout import ConnectCluster, run_stage, when_needed
from flows.run_directory import RunDirectory
from flows.training_directory import TrainingDirectory
from flows.value_range import require_value_range
from storage.dataset_store import DatasetStore

_CHUNK = 16

StrengthCurves = Mapping[str, Mapping[str, tuple[list[float], list[float]]]]
"""Pseudo-change → method → strengths and F1."""


@dataclass(frozen=True, kw_only=True)
class RobustnessTool:
    """On a worker: some samples with one pseudo-change, judged at the frozen threshold."""

    store: DatasetStore
    predictor: DasnetPredictor
    cut: float
    peak: float

    def __call__(self, item: tuple[str, float, tuple[int, ...]]) -> Mapping[str, Any]:
        operation, strength, indices = item
        samples = self.store.read(indices)
        total = Confusion()
        for number, index in enumerate(indices):
            before, after, valid, label = pseudo_changed(
                samples.before[number],
                samples.after[number],
                samples.valid[number],
                samples.label[number],
                operation=operation,
                strength=strength,
                seed=index,
                peak=self.peak,
            )
            distance = self.predictor.distances(np.stack([before, after])[None], valid[None])[0, 0]
            total += Confusion.count(distance >= self.cut, label)
        return {kind: getattr(total, kind) for kind in ("tp", "fp", "fn", "tn")}


def make_robustness_tool(store: DatasetStore, bundle: Path, device: str, peak: float) -> RobustnessTool:
    """Runs once on each worker: loads the model there."""
    torch.set_num_threads(1)
    loaded = load_bundle(bundle)
    return RobustnessTool(
        store=store,
        predictor=DasnetPredictor(loaded, device=device, precision="float32"),
        cut=loaded.calibration.distance(loaded.threshold),
        peak=peak,
    )


def robustness_curves(
    request: CompareRequest, store: DatasetStore, directory: RunDirectory, failed: Mapping[str, str]
) -> tuple[StrengthCurves, dict[str, str]]:
    """F1 of the first seed of each trained row of the first table at each strength; what is scored is kept.

    Args:
        failed: trainings without a bundle.

    Returns:
        The curves, and why some methods have none.
    """
    first = next(iter(request.contents.values()))
    trained = [one for variant in first.variants for one in request.trainings(variant)]
    # one for all of them, so that each sees the same pixels
    peak = request.peak or max((one.recipe.augmentation.peak for one in trained), default=0.0)
    reasons: dict[str, str] = {}
    try:
        require_value_range(store, peak=peak, setting="--peak", otherwise="or leave robustness out")
    except TrainingError as error:
        current_reporter().warn(f"robustness failed: {error}")
        return {operation: {} for operation in STRENGTHS}, {"robustness": str(error)}
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {operation: {} for operation in STRENGTHS}
    with ExitStack() as until_end:
        cluster = when_needed(request.cluster, until_end)
        for variant in first.variants:
            trainings = [one for one in request.trainings(variant) if one.key not in failed]
            if not trainings:
                continue
            try:
                totals = _scored(trainings[0], store, directory, cluster, request, peak=peak)
            except Exception as error:
                # whatever ends one method's curve, the others have theirs, and all have their rows
                reasons[f"robustness of {variant.name}"] = reason_of(error)
                current_reporter().warn(f"robustness of {variant.name} failed: {reason_of(error)}")
                continue
            for operation, strengths in STRENGTHS.items():
                f1 = [totals[operation if strength else "none", strength].f1 for strength in strengths]
                found[operation][variant.name] = (list(strengths), f1)
    return found, reasons


def _scored(
    training: Training,
    store: DatasetStore,
    directory: RunDirectory,
    cluster: ConnectCluster,
    request: CompareRequest,
    *,
    peak: float,
) -> dict[tuple[str, float], Confusion]:
    indices = [int(index) for index in store.indices("test")]
    chunks = [tuple(indices[first : first + _CHUNK]) for first in range(0, len(indices), _CHUNK)]
    tried = [
        ("none", 0.0),
        *((name, strength) for name, all_of in STRENGTHS.items() for strength in all_of if strength),
    ]
    items = {
        f"{operation}-{strength:g}-{number:06d}": (operation, strength, chunk)
        for operation, strength in tried
        for number, chunk in enumerate(chunks)
    }
    bundle = TrainingDirectory(training.request.output).bundle.resolve()
    # of this very bundle: the same recipe trained anew, or by other code, is another
    ledger = directory.ledger(f"robustness-{training.key}-{load_bundle(bundle).digest[:10]}-peak{peak:g}")
    ledger.forget_failed("run again")
    result = run_stage(
        f"robustness {training.key}",
        cluster=cluster,
        make_tool=lambda layout: partial(
            make_robustness_tool,
            store,
            bundle,
            "cuda" if request.cluster.kind == "cuda" else "auto",
            peak,
        ),
        items=items.items(),
        total=len(items),
        ledger=ledger,
        in_flight=request.cluster.in_flight,
        retries=2,
        reporter=current_reporter(),
    )
    if result.failed:
        raise FailedBlocksError(result.failed, total=len(items), directory=directory.path, again="again")
    totals = {key: Confusion() for key in tried}
    for name, (operation, strength, _) in items.items():
        facts = ledger.entry(name).facts
        totals[operation, strength] += Confusion(**{kind: facts[kind] for kind in ("tp", "fp", "fn", "tn")})
    current_reporter().end(f"F1 {totals['none', 0.0].f1:.3f} without pseudo-changes")
    return totals


def robustness_csv(curves: StrengthCurves) -> str:
    """A line a method, pseudo-change and strength."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "pseudo_change", "strength", "f1"])
    for operation, methods in curves.items():
        for name, points in methods.items():
            writer.writerows([name, operation, strength, f1] for strength, f1 in zip(*points, strict=True))
    return text.getvalue()

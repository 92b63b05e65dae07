"""F1 against the strength of pseudo-changes on the test split, over the cluster: networks as they are, methods without
training fitted anew to what they see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from dasnet.errors import TrainingError
from dasnet.metrics import Confusion
from dasnet.prediction.bundle import load_bundle
from dasnet.training.pseudo_changes import STRENGTHS
from flows.cluster.stage import ConnectCluster, Effort, Stage, Tool, run_stage, when_needed
from flows.comparison.request import CompareRequest, Training
from flows.comparison.results import csv_of
from flows.comparison.tools import make_robustness_tool, make_untrained_robustness_tool
from flows.comparison.untrained import UntrainedScore
from flows.dataset.fitting import require_value_range
from flows.run.directory import RunDirectory
from flows.run.errors import reason_of
from flows.run.observer import current_observer
from flows.training.directory import TrainingDirectory
from storage.datasets.store import DatasetStore

_CHUNK = 16

StrengthCurves = Mapping[str, Mapping[str, tuple[list[float], list[float]]]]
"""Pseudo-change → method → strengths and F1."""


def robustness_curves(
    request: CompareRequest,
    store: DatasetStore,
    directory: RunDirectory,
    failed: Mapping[str, str],
    untrained: Mapping[str, UntrainedScore],
) -> tuple[StrengthCurves, dict[str, str]]:
    """F1 of each row of the first table at each strength, of its first seed; what is scored is kept.

    Args:
        failed: trainings without a bundle.
        untrained: what methods without training reach, by name; others of them have no curve.

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
        current_observer().warn(f"robustness failed: {error}")
        return {operation: {} for operation in STRENGTHS}, {"robustness": str(error)}
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {operation: {} for operation in STRENGTHS}
    device = "cuda" if request.cluster.kind == "cuda" else "auto"
    with ExitStack() as until_end:
        cluster = when_needed(request.cluster, until_end)
        for variant in first.variants:
            trainings = [one for one in request.trainings(variant) if one.key not in failed]
            try:
                if trainings:
                    scoring = _of_network(trainings[0], store, device=device, peak=peak)
                elif variant.method in untrained:
                    scoring = _of_untrained(variant.method, untrained[variant.method], store, peak=peak)
                else:
                    continue
                totals = _scored(scoring, directory, cluster, request, peak=peak)
            except Exception as error:
                # whatever ends one method's curve, the others have theirs, and all have their rows
                reasons[f"robustness of {variant.name}"] = reason_of(error)
                current_observer().warn(f"robustness of {variant.name} failed: {reason_of(error)}")
                continue
            for operation, strengths in STRENGTHS.items():
                f1 = [totals[operation if strength else "none", strength].f1 for strength in strengths]
                curves[operation][variant.name] = (list(strengths), f1)
    return curves, reasons


_TRIED = [("none", 0.0), *((name, strength) for name, all_of in STRENGTHS.items() for strength in all_of if strength)]
"""Pseudo-changes that are drawn, with their strengths."""

Totals = Mapping[tuple[str, float], Confusion]
"""What a row reaches with each of them."""


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """What there is to score of one row.

    Attributes:
        what: for messages; `identity`: what a ledger's figures are of.
        items: (pseudo-change, strength, …) by name; `make_tool`: runs once on each worker, to take them.
    """

    what: str
    identity: str
    items: Mapping[str, tuple[Any, ...]]
    make_tool: Callable[[], Callable[..., Mapping[str, Any]]]


def _of_network(training: Training, store: DatasetStore, *, device: str, peak: float) -> _Scoring:
    indices = [int(index) for index in store.indices("test")]
    chunks = [tuple(indices[first : first + _CHUNK]) for first in range(0, len(indices), _CHUNK)]
    bundle = TrainingDirectory(training.request.output).bundle.resolve()
    return _Scoring(
        what=training.key,
        # of this very bundle: the same recipe trained anew, or by other code, is another
        identity=f"{training.key}-{load_bundle(bundle).digest[:10]}",
        items={
            f"{operation}-{strength:g}-{number:06d}": (operation, strength, chunk)
            for operation, strength in _TRIED
            for number, chunk in enumerate(chunks)
        },
        make_tool=partial(make_robustness_tool, store, bundle, device, peak),
    )


def _of_untrained(method: str, alone: UntrainedScore, store: DatasetStore, *, peak: float) -> _Scoring:
    return _Scoring(
        what=method,
        identity=f"{method}-{alone.identity}",
        items={f"{operation}-{strength:g}": (operation, strength) for operation, strength in _TRIED},
        make_tool=partial(make_untrained_robustness_tool, store, method, alone.threshold, peak),
    )


def _scored(
    scoring: _Scoring, directory: RunDirectory, cluster: ConnectCluster, request: CompareRequest, *, peak: float
) -> Totals:
    items = scoring.items
    ledger = directory.ledger(f"robustness-{scoring.identity}-peak{peak:g}")
    ledger.forget_failed("run again")
    result = run_stage(
        Stage(
            name=f"robustness {scoring.what}",
            tool=Tool(make=lambda layout: scoring.make_tool),
            items=items.items(),
            total=len(items),
            ledger=ledger,
        ),
        cluster=cluster,
        effort=Effort(in_flight=request.cluster.in_flight, retries=2),
    )
    result.require_all(directory.path, again="again")
    totals = {key: Confusion() for key in _TRIED}
    for name, (operation, strength, *_) in items.items():
        facts = ledger.entry(name).facts
        totals[operation, strength] += Confusion(**{kind: facts[kind] for kind in asdict(Confusion())})
    current_observer().end(f"F1 {totals['none', 0.0].f1:.3f} without pseudo-changes")
    return totals


def robustness_csv(curves: StrengthCurves) -> str:
    """A line a method, pseudo-change and strength."""
    lines = [
        (name, operation, strength, f1)
        for operation, methods in curves.items()
        for name, points in methods.items()
        for strength, f1 in zip(*points, strict=True)
    ]
    return csv_of(["method", "pseudo_change", "strength", "f1"], lines)

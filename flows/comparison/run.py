"""compare-methods: what must be trained is trained, all is scored at thresholds of validation, tables are written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path

from dasnet.errors import BundleError
from dasnet.metrics import Confusion
from dasnet.networks.encoders.backbone_weights import load_backbone
from dasnet.prediction.bundle import load_bundle
from flows.cluster.config import ClusterConfig
from flows.cluster.connect import connect
from flows.cluster.layout import local_layout, planned_layout
from flows.cluster.lending import FreeWorkers, lending
from flows.cluster.settings import several_at_a_time
from flows.comparison.cost import cost_of
from flows.comparison.directory import ComparisonDirectory
from flows.comparison.report import Comparison, write_comparison
from flows.comparison.request import CompareRequest, Training
from flows.comparison.results import Cost, Result, Row, best_of
from flows.comparison.robustness import robustness_curves
from flows.comparison.untrained import UntrainedScore, untrained
from flows.comparison.variants import TableName, Variant
from flows.run.artifacts import Table
from flows.run.context import StoppedError, stopped_by
from flows.run.errors import FailedMethodsError, reason_of
from flows.run.observer import Part, current_observer, observed_by, step
from flows.run.versions import versions
from flows.training.directory import TrainingDirectory
from flows.training.run import run_training
from storage.datasets.store import DatasetStore, open_dataset
from storage.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ComparisonSummary:
    """What came of a comparison: rows by table, and how many trainings this call ran."""

    report: Path
    tables: Mapping[TableName, tuple[Row, ...]]
    trained: int
    kept: int

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        lines = [("trainings", f"{self.trained} now, {self.kept} kept from before")]
        for table, rows in self.tables.items():
            if (best := best_of(rows)) is not None:
                lines.append((table, f"best: {best.name}, F1 {best.figures['f1'][0]:.3f} on test"))
        return [*lines, ("report", str(self.report))]


@step("plan")
def plan(request: CompareRequest) -> DatasetStore:
    """Open the dataset, see that it can answer; refuse what cannot work for any method."""
    planned_layout(request.cluster)
    store = open_dataset(request.dataset)
    trained = any(variant.is_trained for variant in request.variants)
    for split in ("train", "val", "test") if trained else ("val", "test"):
        store.indices(split)
        if lacking := store.lacks(split):
            raise InputError(
                f"{store.path}, split {split}: not one {lacking} pixel, so methods cannot be compared on it"
            )
    backbones = {one.recipe.backbone for variant in request.variants for one in request.trainings(variant)}
    # weights that do not fit make some methods fail: the others have their rows
    if all(variant.is_trained for variant in request.variants) and backbones <= set(request.backbone_weights):
        for backbone, path in request.backbone_weights.items():
            load_backbone(path, backbone, in_bands=len(store.bands))
    current_observer().show(
        Table(
            "comparison-plan",
            ("table", "row", "trainings"),
            [
                [name, variant.name, ", ".join(one.key for one in request.trainings(variant)) or "none"]
                for name, table in request.contents.items()
                for variant in table.variants
            ],
            "What is compared",
        )
    )
    return store


@step("train")
def train_all(request: CompareRequest, store: DatasetStore) -> tuple[dict[str, str], int, int]:
    """Run what is not trained yet; returns why some failed, and how many were trained now and before."""
    # a seed of every method before the next seed of any: what is interrupted has something of all
    rows = [request.trainings(variant) for variant in request.variants if variant.is_trained]
    trainings = list({one.key: one for seed in zip(*rows, strict=True) for one in seed}.values())
    pending = [training for training in trainings if not _is_finished(training, store)]
    reporter = current_observer()
    reporter.begin("train", len(trainings), done=len(trainings) - len(pending), unit="trainings", live="trainings")
    failed: dict[str, str] = {}
    stop = threading.Event()
    with (
        several_at_a_time(),
        _places(request.cluster, needed=bool(pending)) as (at_a_time, place),
        ThreadPoolExecutor(at_a_time) as pool,
    ):
        futures = {pool.submit(copy_context().run, _train_one, one, place, stop): one for one in pending}
        try:
            for future in as_completed(futures):
                error, training = future.exception(), futures[future]
                if error is not None:
                    failed[training.key] = reason_of(error)
                    reporter.warn(f"{training.key} failed: {failed[training.key]}")
                reporter.advance()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            reporter.pause()
    done = len(pending) - len(failed)
    reporter.end(f"{done} now, {len(trainings) - len(pending)} kept from before, {len(failed)} failed")
    return failed, done, len(trainings) - len(pending)


Place = Callable[[], AbstractContextManager[ClusterConfig]]
"""Opens a place for one training: the cluster that it is asked to run on."""


def _train_one(training: Training, place: Place, stop: threading.Event) -> None:
    if stop.is_set():
        raise StoppedError("asked to stop")
    observer = current_observer().beside()
    with stopped_by(stop), observed_by(observer), place() as cluster:
        request = training.request.model_copy(update={"cluster": cluster})
        part = Part(kind="train", title=request.output.name, parameters={"request": request})
        observer.part(part, lambda: run_training(request))


@contextmanager
def _places(cluster: ClusterConfig, *, needed: bool) -> Iterator[tuple[int, Place]]:
    """How many trainings there are at a time, and where: each on one worker, its own or one of the cluster's.

    One rank a training leaves no worker waiting for another, and gives the weights of one.
    """
    if cluster.kind == "local" or not needed:
        layout = local_layout(cluster)
        own = cluster.model_copy(update={"workers": 1, "lanes": layout.lanes})
        yield layout.workers, lambda: nullcontext(own)
        return
    with connect(cluster, workers_stay=True) as (client, layout):
        workers = FreeWorkers(client, layout)

        @contextmanager
        def place() -> Iterator[ClusterConfig]:
            with workers.one() as worker, lending(worker):
                yield cluster.model_copy(update={"workers": 1})

        yield max(layout.workers, 1), place


def _is_finished(training: Training, store: DatasetStore) -> bool:
    """Whether a directory holds this very training; what it holds otherwise is for `train` to judge."""
    directory = TrainingDirectory(training.request.output)
    described = directory.describe()
    if described is None or described.get("state") != "finished" or described["identity"]["dataset"] != store.digest:
        return False
    try:
        load_bundle(directory.bundle)
    except BundleError:  # not there, or damaged: made again from the last checkpoint
        return False
    return True


def result_of(training: Training, seed: int) -> Result:
    """What a finished training's bundle says of itself: as `evaluate` finds it, at the frozen threshold.

    Raises:
        BundleError: no finished bundle.
    """
    metrics = load_bundle(TrainingDirectory(training.request.output).bundle).metrics
    test = metrics["test"]
    return Result(
        name=training.key,
        seed=seed,
        confusion=Confusion(**{kind: int(test[kind]) for kind in ("tp", "fp", "fn", "tn")}),
        highest_f1=test["highest_f1_of_any_threshold"],
        validation_f1=metrics["validation"]["f1"],
    )


@step("score")
def score_all(
    request: CompareRequest, store: DatasetStore, directory: ComparisonDirectory, failed: Mapping[str, str]
) -> tuple[dict[TableName, tuple[Row, ...]], dict[str, UntrainedScore]]:
    """Results of every row, as bundles of trainings have them, and of methods without training; these by name too."""
    reporter = current_observer()
    names = [variant.method for variant in request.variants if not variant.is_trained]
    reporter.begin("score", len(names), unit="methods")
    scores: dict[str, UntrainedScore] = {}
    reasons = dict(failed)
    for name in names:
        try:
            scores[name] = untrained(name, store, directory.untrained(name))
        except Exception as error:
            # whatever ends one method, the others have their rows
            reasons[name] = reason_of(error)
            reporter.warn(f"{name} failed: {reasons[name]}")
        reporter.advance()
    tables = {
        name: tuple(
            _trained_row(request, variant, store, directory, reasons)
            if variant.is_trained
            else _untrained_row(variant, scores, reasons)
            for variant in table.variants
        )
        for name, table in request.contents.items()
    }
    reporter.end(f"{sum(map(len, tables.values()))} rows in {len(tables)} tables")
    return tables, scores


def _untrained_row(variant: Variant, scores: Mapping[str, UntrainedScore], reasons: Mapping[str, str]) -> Row:
    if (score := scores.get(variant.method)) is None:
        return Row(name=variant.name, results=(), failed=((variant.method, reasons[variant.method]),))
    cost = Cost(parameters=0, flops=None, pairs_per_s=score.pairs_per_s)
    return Row(name=variant.name, results=(score.result,), cost=cost)


def _trained_row(
    request: CompareRequest,
    variant: Variant,
    store: DatasetStore,
    directory: ComparisonDirectory,
    reasons: Mapping[str, str],
) -> Row:
    results, without = [], []
    cost = None
    for seed, one in enumerate(request.trainings(variant)):
        if one.key in reasons:
            without.append((one.key, reasons[one.key]))
            continue
        try:
            results.append(result_of(one, seed))
        except Exception as error:
            # a bundle that cannot be read: the others have their rows
            without.append((one.key, reason_of(error)))
            current_observer().warn(f"{one.key} failed: {reason_of(error)}")
            continue
        try:
            cost = cost or cost_of(load_bundle(TrainingDirectory(one.request.output).bundle), store, directory.costs)
        except Exception as error:
            # a device without memory: its scores are there, and the next seed may have a cost
            current_observer().warn(f"what {one.key} costs could not be measured: {reason_of(error)}")
    return Row(name=variant.name, results=results, failed=without, cost=cost)


def run_comparison(request: CompareRequest) -> ComparisonSummary:
    """A dataset in; tables, curves and pictures of methods on it out, means and spreads over seeds.

    Run it again after any interruption, or with more methods, tables or seeds: what is trained is kept.

    Raises:
        FailedMethodsError: some of them failed; tables and report of the others are written.
    """
    store = plan(request)
    directory = ComparisonDirectory(request.output)
    with directory.locked():
        directory.adopt({"kind": "comparison", "dataset": store.digest}, versions=versions())
        directory.update(state="unfinished", request=request.model_dump(mode="json"))
        failed, trained, kept = train_all(request, store)
        tables, scored = score_all(request, store, directory, failed)
        curves, uncurved = None, dict[str, str]()
        if request.robustness:
            curves, uncurved = robustness_curves(request, store, directory, failed, scored)
        missing = {what: reason for rows in tables.values() for row in rows for what, reason in row.failed} | uncurved
        write_comparison(
            Comparison(
                request=request,
                store=store,
                directory=directory,
                tables=tables,
                untrained=scored,
                curves=curves,
                failed=missing,
            )
        )
        directory.update(state="failed" if missing else "finished")
    if missing:
        raise FailedMethodsError(missing, report=directory.report)
    return ComparisonSummary(report=directory.report, tables=tables, trained=trained, kept=kept)

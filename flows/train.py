"""train: dataset → ranks → history, live → bundle with threshold, calibration, scores and card."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from distributed import Client, Future
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from dasnet.backbone_weights import load_backbone
from dasnet.bundle import Bundle, save_bundle
from dasnet.errors import TrainingError
from dasnet.trained_bundle import TrainedBundle
from dasnet.training import HISTORY, Progress
from flows import artifacts
from flows.cluster import ClusterLayout, connect, require_cluster
from flows.console import current_reporter
from flows.endings import named_endings
from flows.evaluation_report import PEER_HEADER, peer_rows
from flows.failures import FailedBlocksError
from flows.model_card import model_card
from flows.network_figures import HEADINGS, changed_samples, figures_of
from flows.rank import SAMPLES, RankTask, free_port, has_gpu, make_bundle, train_rank, training_data
from flows.run_directory import RunDirectory
from flows.score import Score, score
from flows.stopping import raise_if_stopped
from flows.train_report import read_history, training_pictures, write_training_report
from flows.training_config import TrainRequest
from flows.training_watch import EPOCH_HEADER, Watch, epoch_row
from flows.value_range import require_value_range
from flows.versions import versions
from storage.dataset_store import SPLITS, DatasetStore, open_dataset
from storage.page import markdown_table
from storage.publish import publish, write_json_atomically
from tiling.errors import ClusterLostError
from tiling.execute import workers_of

_LOOK_S = 1.0


class TrainingDirectory(RunDirectory):
    """``DIR/bundle.safetensors``, ``DIR/report.html``; beside them ``training/`` with checkpoints and history."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.training = path / "training"
        self.tensorboard = path / "tensorboard"
        self.bundle = path / "bundle.safetensors"
        self.draft = self.training / "bundle.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """What came of a training.

    Attributes:
        epochs: trained; `stopped`: why before the last, or empty.
        test: scores on the test split; None = the dataset has none.
    """

    bundle: Path
    report: Path
    epochs: int
    stopped: str
    validation_f1: float
    test: Score | None

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        lines = [("epochs", f"{self.epochs}{f', stopped: {self.stopped}' if self.stopped else ''}")]
        lines.append(("validation", f"F1 {self.validation_f1:.3f}"))
        if self.test is not None:
            f1 = self.test.intervals["f1"]
            lines.append(
                (
                    "test",
                    f"F1 {f1.value:.3f} ({f1.low:.3f} – {f1.high:.3f}) at the frozen threshold; "
                    f"{self.test.highest[1].f1:.3f} at the best one; change vectors {self.test.change_vectors.f1:.3f}",
                )
            )
        return [*lines, ("bundle", str(self.bundle)), ("report", str(self.report))]


@task(name="plan", task_run_name="plan", cache_policy=NO_CACHE, persist_result=False)
def plan(request: TrainRequest) -> DatasetStore:
    """Open the dataset, see that recipe, weights and cluster fit; refuse what cannot work."""
    require_cluster(request.cluster)
    store = open_dataset(request.dataset)
    recipe = request.effective
    for split in ("train", "val"):
        indices = store.indices(split)
        for kind in ("changed", "unchanged"):
            if not store.pixels(kind)[indices].any():
                raise TrainingError(
                    f"{store.path}: not one {kind} pixel in the {len(indices):,} samples of split {split}: "
                    "weights would be infinite and no threshold could be chosen"
                )
    data = training_data(store, recipe)
    if recipe.augmentation.crop > store.window:
        raise TrainingError(
            f"the recipe crops {recipe.augmentation.crop} px out of samples of {store.window} px ({store.path})"
        )
    if recipe.augmentation.photometric:
        require_value_range(
            store,
            peak=recipe.augmentation.peak,
            setting="augmentation.peak",
            otherwise="or its brightness, contrast, saturation, season, haze, blur and noise to 0",
        )
    if request.backbone_weights is not None:
        load_backbone(request.backbone_weights, recipe.backbone, in_bands=len(data.bands))
    settings = recipe.settings()
    artifacts.show_table(
        "recipe", ("setting", "value"), [[name, json.dumps(value)] for name, value in settings.items()], "Recipe"
    )
    return store


@task(name="train", task_run_name="train", cache_policy=NO_CACHE, persist_result=False)
def train_ranks(
    request: TrainRequest, store: DatasetStore, directory: TrainingDirectory, cluster: tuple[Client, ClusterLayout]
) -> Progress:
    """One rank on each worker until the last of them ends; what they write is shown as it comes."""
    client, _ = cluster
    tasks, addresses = _placed(request, store, directory, client)
    futures = [
        client.submit(
            train_rank,
            task,
            workers=[address],
            allow_other_workers=False,
            pure=False,
            retries=0,
            key=_key("rank", task.rank),
        )
        for task, address in zip(tasks, addresses, strict=True)
    ]
    steps = _steps(request, store)
    reporter = current_reporter()
    reporter.begin("train", steps, unit="steps")
    live = artifacts.LiveProgress("train", steps, unit="steps")
    try:
        with Watch(directory.training, directory.tensorboard, live) as watch:
            while not all(future.done() for future in futures):
                raise_if_stopped()
                _raise_first(futures, client)
                _require_workers(addresses, client)
                watch.look()
                time.sleep(_LOOK_S)
            watch.look()
        _raise_first(futures, client)
        ended = Progress(**futures[0].result())
    except BaseException:
        _end_workers(futures, addresses, client)
        raise
    finally:
        live.flush()
    reporter.end(f"{ended.epoch} epochs, best F1 {ended.best_f1:.3f} on validation at epoch {ended.best_epoch + 1}")
    return ended


def _placed(
    request: TrainRequest, store: DatasetStore, directory: TrainingDirectory, client: Client
) -> tuple[list[RankTask], list[str]]:
    addresses = sorted(workers_of(client))[: request.cluster.workers or None]
    hosts = [urlparse(address).hostname or "127.0.0.1" for address in addresses]
    on_gpus = request.cluster.kind != "local" and all(client.run(has_gpu, workers=addresses).values())
    rendezvous = ""
    if len(addresses) > 1:
        port = client.run(free_port, workers=[addresses[0]])[addresses[0]]
        rendezvous = f"tcp://{hosts[0]}:{port}"
    tasks = [
        RankTask(
            recipe=request.effective,
            dataset=store.path.resolve(),
            directory=directory.training.resolve(),
            backbone_weights=request.backbone_weights and request.backbone_weights.resolve(),
            rank=rank,
            world=len(addresses),
            rendezvous=rendezvous,
            neighbours=hosts.count(host),
            threads=request.cluster.lanes,
            cuda=on_gpus,
        )
        for rank, host in enumerate(hosts)
    ]
    return tasks, addresses


def _steps(request: TrainRequest, store: DatasetStore) -> int:
    recipe = request.effective
    shown = recipe.samples_per_epoch or len(store.indices("train"))
    return max(shown // recipe.batch, 1) * recipe.epochs


def _key(what: str, number: int) -> str:
    return f"{what}-{number}-{time.time_ns():x}"


def _raise_first(futures: list[Future], client: Client) -> None:
    if client.status != "running":
        raise ClusterLostError("the connection to the Dask scheduler is closed")
    for future in futures:
        if future.status == "error":
            error = future.exception()
            assert isinstance(error, BaseException)
            error.__cause__ = None
            raise error
        if future.status in ("lost", "cancelled"):
            raise ClusterLostError(f"a rank of the training was {future.status}: its worker died")


def _require_workers(addresses: Sequence[str], client: Client) -> None:
    """A rank is bound to its worker: where that is gone, Dask would wait for it for ever and tell nobody."""
    there = workers_of(client)
    if gone := [address for address in addresses if address not in there]:
        raise ClusterLostError(f"the worker {', '.join(gone)} of a rank of the training died or was replaced")


def _end_workers(futures: list[Future], addresses: list[str], client: Client) -> None:
    """A rank waits for the others in the middle of a step: only its end ends it."""
    if client.status == "running":
        client.cancel(futures, force=True)
        if len(addresses) > 1:
            client.restart_workers(addresses, raise_for_error=False)


@task(name="bundle", task_run_name="bundle", cache_policy=NO_CACHE, persist_result=False)
def bundle_task(
    request: TrainRequest, store: DatasetStore, directory: TrainingDirectory, cluster: tuple[Client, ClusterLayout]
) -> TrainedBundle:
    """Calibrate and cut the best weights on validation, on a worker; write them as a bundle."""
    current_reporter().begin("bundle", 1, unit="file")
    client, _ = cluster
    (task, *_), (address, *_) = _placed(request, store, directory, client)
    alone = replace(task, world=1, rendezvous="")
    future = client.submit(
        make_bundle,
        alone,
        directory.draft.resolve(),
        workers=[address],
        allow_other_workers=False,
        pure=False,
        key=_key("bundle", 0),
    )
    while not future.done():
        _require_workers([address], client)
        time.sleep(_LOOK_S)
    _raise_first([future], client)
    trained = future.result()
    assert isinstance(trained, TrainedBundle)
    current_reporter().end(
        f"F1 {trained.validation.f1:.3f} on validation at probability {trained.bundle.threshold:.3f}, calibration "
        f"error {trained.before.error:.3f} → {trained.after.error:.3f}"
    )
    return trained


def finished(
    request: TrainRequest,
    store: DatasetStore,
    directory: TrainingDirectory,
    ended: Progress,
    trained: TrainedBundle,
    test: Score | None,
) -> TrainingSummary:
    """Write card, metrics and provenance into the bundle; write the report."""
    recipe = request.effective
    name = request.name or directory.path.resolve().name
    started_from = "random" if request.backbone_weights is None else request.backbone_weights.name
    provenance = {
        "made": date.today().isoformat(),
        "recipe": recipe.settings(),
        "dataset": {"name": store.path.parent.name, "sha256": store.digest},
        "class_frequency": training_data(store, recipe).frequency.to_dict(),
        "backbone_weights": None
        if request.backbone_weights is None
        else {
            "file": request.backbone_weights.name,
            "sha256": hashlib.sha256(request.backbone_weights.read_bytes()).hexdigest(),
        },
        "epochs": ended.epoch,
        "stopped": ended.stopped,
        "versions": versions(),
    }
    metrics: dict[str, Any] = {
        "validation": trained.validation.scores(),
        "validation_calibration_error": trained.after.error,
        "validation_calibration_error_uncalibrated": trained.before.error,
    }
    if test is not None:
        metrics["test"] = test.to_dict()
    card = model_card(
        name=name,
        trained=trained,
        recipe=recipe,
        store=store,
        score=test,
        about=request.about,
        epochs=ended.epoch,
        weights="from scratch" if request.backbone_weights is None else f"of the backbone from {started_from}",
    )
    bundle = save_bundle(directory.bundle, replace(trained.bundle, provenance=provenance, metrics=metrics, card=card))
    with publish(directory.path / "card.md") as draft:
        draft.write_text(card)
    history = read_history(directory.training / HISTORY)
    with publish(directory.path / "history.json") as draft:
        draft.write_text(json.dumps(history))
    pictures = [*training_pictures(history, trained), *_seen(request, bundle, store)]
    sheet = directory.training / SAMPLES
    report = write_training_report(
        directory.path / "report.html",
        name=name,
        bundle=bundle,
        store=store,
        recipe=recipe,
        history=history,
        header=EPOCH_HEADER,
        rows=[epoch_row(facts) for facts in history if facts["kind"] == "epoch"],
        pictures=pictures,
        samples=sheet.read_bytes() if sheet.exists() else None,
        score=test,
        card=card,
    )
    write_json_atomically(directory.path / "metrics.json", metrics)
    for key, picture, caption in pictures:
        artifacts.show_picture(key, picture, caption)
    if test is not None:
        artifacts.show_markdown("test", markdown_table(PEER_HEADER, peer_rows(test, name)), "Scores on the test split")
    artifacts.show_markdown("model-card", card, "Model card")
    directory.update(state="finished")
    return TrainingSummary(
        bundle=directory.bundle,
        report=report,
        epochs=ended.epoch,
        stopped=ended.stopped,
        validation_f1=trained.validation.f1,
        test=test,
    )


def _seen(request: TrainRequest, bundle: Bundle, store: DatasetStore) -> list[tuple[str, bytes, str]]:
    """(name, PNG, caption) of what the network sees on samples it was not trained on; nothing if none has a change."""
    if not request.figures:
        return []
    shown = ("test", "val") if _has_both_classes(store, "test") else ("val",)
    changed = next((found for split in shown if len(found := changed_samples(store, split))), None)
    if changed is None:
        return []
    reporter = current_reporter()
    reporter.begin("figures", len(HEADINGS), unit="figures")
    made, left_out = figures_of(bundle, store, changed)
    reporter.end(f"{len(made)} figures{''.join(f'; left out: {reason}' for reason in left_out)}")
    return [(name, picture, f"{HEADINGS[name]}. {caption}") for name, (picture, caption) in made.items()]


@flow(name="train", flow_run_name="{request.output.name}", persist_result=False)
@named_endings
def train(request: TrainRequest) -> TrainingSummary:
    """A dataset in; a calibrated bundle with its card, scores and report out.

    Run it again with the same request after any interruption: training goes on from its last checkpoint.
    """
    store = plan(request)
    directory = TrainingDirectory(request.output)
    with directory.locked(), ExitStack() as until_end:
        directory.adopt(
            {
                "kind": "training",
                "dataset": store.digest,
                "recipe": request.effective.identity(),
                "backbone_weights": None
                if request.backbone_weights is None
                else hashlib.sha256(request.backbone_weights.read_bytes()).hexdigest(),
                "ranks": request.cluster.workers,
            },
            request=request.model_dump(mode="json"),
            versions=versions(),
        )
        cluster = until_end.enter_context(connect(_one_task_a_worker(request), workers_stay=True))
        artifacts.show_dashboard(cluster[0].dashboard_link)
        ended = train_ranks(request, store, directory, cluster)
        trained = bundle_task(request, store, directory, cluster)
        test = None
        if _has_both_classes(store, "test"):
            test = score_test(request, store, directory, lambda: cluster)
        else:
            current_reporter().warn(f"{store.path} has no test split with both classes: the bundle has no test scores")
        return finished(request, store, directory, ended, trained, test)


def _has_both_classes(store: DatasetStore, split: str) -> bool:
    indices = np.flatnonzero(store.splits == SPLITS.index(split))
    return all(store.pixels(kind)[indices].any() for kind in ("changed", "unchanged"))


def score_test(
    request: TrainRequest,
    store: DatasetStore,
    directory: TrainingDirectory,
    cluster: Callable[[], tuple[Client, ClusterLayout]],
) -> Score:
    """Score the bundle on the test split; scored anew for each bundle, since its weights decide."""
    directory.ledger("score-test").remove()
    try:
        return score(str(directory.draft), store, "test", directory=directory, cluster=cluster, config=request.cluster)
    except FailedBlocksError:
        directory.ledger("score-test").remove()
        raise


def _one_task_a_worker(request: TrainRequest) -> Any:
    return (
        request.cluster.model_copy(update={"workers": request.cluster.workers or 1})
        if (request.cluster.kind == "local")
        else request.cluster
    )

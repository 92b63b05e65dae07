"""train: dataset → ranks → history, live → bundle with threshold, calibration, scores and card."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

from dasnet.errors import TrainingError
from dasnet.networks.encoders.backbone_weights import load_backbone
from dasnet.networks.encoders.backbones import require_encoder
from dasnet.networks.encoders.low_rank import require_adapters
from dasnet.prediction.bundle import load_bundle
from dasnet.training.settings import OptimizerSettings
from flows.cluster.config import ClusterConfig
from flows.cluster.connect import connect
from flows.cluster.layout import planned_layout
from flows.cluster.stage import ConnectCluster
from flows.dataset.fitting import require_value_range
from flows.evaluation.samples import Score, Scoring, score
from flows.run.artifacts import Table
from flows.run.errors import FailedBlocksError
from flows.run.observer import current_observer, step
from flows.run.versions import versions
from flows.training.data import dataset_of, training_data
from flows.training.job import Outcome, TrainingJob
from flows.training.ranks import bundle_task, train_ranks
from flows.training.request import TrainRequest
from flows.training.results import TrainingSummary, finished

_OF_PRETRAINED = ("encoder_rate", "frozen", "encoder_statistics")


def _untouched(setting: str) -> Any:
    return OptimizerSettings.model_fields[setting].default


@step("plan")
def plan(request: TrainRequest) -> TrainingJob:
    """Open the dataset, see that recipe, weights and cluster fit; refuse what cannot work."""
    planned_layout(request.cluster)
    store = dataset_of(request.dataset, request.header, name=request.from_bundle or "")
    job = TrainingJob(request=request, store=store)
    recipe = job.recipe
    for split in ("train", "val"):
        count = len(store.indices(split))
        if lacking := store.lacks(split):
            raise TrainingError(
                f"{store.path}: not one {lacking} pixel in the {count:,} samples of split {split}: "
                "weights would be infinite and no threshold could be chosen; prepare it with another --split, --shares "
                "or --seed, or from more imagery"
            )
    data = training_data(store, recipe, request.header)
    if recipe.augmentation.crop > store.window:
        raise TrainingError(
            f"the recipe crops {recipe.augmentation.crop} px out of samples of {store.window} px ({store.path})"
        )
    if recipe.augmentation.photometric:
        require_value_range(
            store,
            peak=recipe.augmentation.peak,
            setting="augmentation.peak",
            otherwise="or its brightness, contrast, saturation, season, haze, blur, sharpen and noise to 0",
        )
    ranks, sampling = request.cluster.workers or 1, recipe.sampling
    if sampling.most_ranks(ranks) < ranks:
        raise TrainingError(
            f"a batch of {sampling.batch} in {sampling.accumulate} passes cannot be spread evenly over {ranks} ranks: "
            f"ask for {sampling.most_ranks(ranks)} workers, or for another batch"
        )
    if recipe.backbone is not None:
        for side in {recipe.augmentation.crop or store.window, store.window}:
            require_encoder(recipe.backbone, in_bands=len(data.bands), side=side)
        if recipe.adapters:
            require_adapters(recipe.backbone, rank=recipe.adapters)
            if request.weights is None and request.from_bundle is None:
                raise TrainingError(
                    f"adapters={recipe.adapters} leaves the encoder {recipe.backbone} as it is, which is random: give "
                    "--backbone-weights"
                )
    if request.from_bundle is not None:
        load_bundle(request.from_bundle)
    elif request.weights is not None and recipe.backbone is not None:
        load_backbone(request.weights, recipe.backbone, in_bands=len(data.bands))
    elif idle := [name for name in _OF_PRETRAINED if getattr(recipe.optimizer, name) != _untouched(name)]:
        current_observer().warn(
            f"{', '.join(idle)} mean nothing here: the encoder starts from random weights; give --backbone-weights"
        )
    settings = recipe.settings()
    current_observer().show(
        Table("recipe", ("setting", "value"), [[name, json.dumps(value)] for name, value in settings.items()], "Recipe")
    )
    return job


def run_training(request: TrainRequest) -> TrainingSummary:
    """A dataset in; a calibrated bundle with its card, scores and report out.

    Run it again with the same request after any interruption: training goes on from its last checkpoint.
    """
    job = plan(request)
    with job.directory.locked(), ExitStack() as until_end:
        job.directory.adopt(
            {
                "kind": "training",
                "dataset": job.store.digest,
                "recipe": job.recipe.identity(),
                "backbone_weights": None if job.start is None else job.start.sha256,
                "ranks": request.cluster.workers,
                **({} if request.header is None else {"from_bundle": request.header.digest}),
            },
            request=request.model_dump(mode="json"),
            versions=versions(),
        )
        cluster = until_end.enter_context(connect(_one_task_a_worker(request.cluster), workers_stay=True))
        progress = train_ranks(job, cluster)
        trained = bundle_task(job, cluster)
        test = None
        if job.store.lacks("test") is None:
            test = score_test(job, lambda: cluster)
        else:
            current_observer().warn(
                f"{job.store.path} has no test split with both classes: the bundle has no test scores"
            )
        return finished(Outcome(job=job, progress=progress, trained=trained, test=test))


def score_test(job: TrainingJob, cluster: ConnectCluster) -> Score:
    """Score the bundle on the test split; scored anew for each bundle, since its weights decide."""
    directory = job.directory
    directory.ledger("score-test").remove()
    try:
        config = job.request.cluster
        scoring = Scoring(bundle=str(directory.draft), directory=directory, cluster=cluster, config=config)
        return score(scoring, job.store, "test")
    except FailedBlocksError:
        directory.ledger("score-test").remove()
        raise


def _one_task_a_worker(cluster: ClusterConfig) -> ClusterConfig:
    return cluster.model_copy(update={"workers": cluster.workers or 1}) if cluster.kind == "local" else cluster

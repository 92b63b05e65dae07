"""A training over the cluster: one rank on each worker, watched from here; then the bundle, on one of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlparse

from distributed import Client, Future

from dasnet.networks.encoders.start_weights import portable
from dasnet.prediction.header import portable_name
from dasnet.training.checkpoints import Progress
from dasnet.training.trained_bundle import TrainedBundle
from flows.cluster.layout import ClusterLayout
from flows.cluster.lending import lent_worker
from flows.run.context import raise_if_stopped
from flows.run.observer import current_observer, step
from flows.training.job import TrainingJob
from flows.training.rank import RankTask, free_port, has_gpu, make_bundle, train_rank
from flows.training.watch import Watch
from tiling.errors import ClusterLostError
from tiling.execute import workers_of

_LOOK_S = 1.0


@step("train")
def train_ranks(job: TrainingJob, cluster: tuple[Client, ClusterLayout]) -> Progress:
    """One rank on each worker until the last of them ends; what they write is shown as it comes."""
    client, _ = cluster
    tasks, addresses = _placed(job, client)
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
    sampling = job.recipe.sampling
    steps = sampling.steps_of_epoch(len(job.store.indices("train"))) * sampling.epochs
    observer = current_observer()
    observer.begin("train", steps, unit="steps", live="train")
    try:
        with Watch(job.directory) as watch:
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
        observer.pause()
    observer.end(f"{ended.epoch} epochs, best F1 {ended.best_f1:.3f} on validation at epoch {ended.best_epoch + 1}")
    return ended


def _placed(job: TrainingJob, client: Client) -> tuple[list[RankTask], list[str]]:
    """The task of each rank, and the address of its worker."""
    request = job.request
    workers = sorted(workers_of(client))
    lent = lent_worker()
    if lent is not None:
        addresses = [lent.address]
        _require_workers(addresses, client)
    else:
        addresses = workers[: request.cluster.workers or job.recipe.sampling.most_ranks(len(workers))]
    hosts = [_host(address) for address in addresses]
    # what shares the cores of a machine: the other ranks, or the workers that are lent to others
    beside = hosts if lent is None else [_host(address) for address in workers]
    on_gpus = request.cluster.kind != "local" and all(client.run(has_gpu, workers=addresses).values())
    rendezvous = ""
    if len(addresses) > 1:
        port = client.run(free_port, workers=[addresses[0]])[addresses[0]]
        rendezvous = f"tcp://{hosts[0]}:{port}"
    tasks = [
        RankTask(
            recipe=job.recipe,
            dataset=job.store.path.resolve(),
            directory=job.directory.training.resolve(),
            backbone_weights=request.weights and portable(request.weights),
            from_bundle=request.from_bundle and portable_name(request.from_bundle),
            rank=rank,
            world=len(addresses),
            rendezvous=rendezvous,
            neighbours=beside.count(host),
            threads=request.cluster.lanes,
            cuda=on_gpus,
        )
        for rank, host in enumerate(hosts)
    ]
    return tasks, addresses


def _host(address: str) -> str:
    return urlparse(address).hostname or "127.0.0.1"


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
    present = workers_of(client)
    if gone := [address for address in addresses if address not in present]:
        raise ClusterLostError(f"the worker {', '.join(gone)} of a rank of the training died or was replaced")


def _end_workers(futures: list[Future], addresses: list[str], client: Client) -> None:
    """A rank waits for the others in the middle of a step: only its end ends it."""
    if client.status == "running":
        client.cancel(futures, force=True)
        if len(addresses) > 1:
            client.restart_workers(addresses, raise_for_error=False)


@step("bundle")
def bundle_task(job: TrainingJob, cluster: tuple[Client, ClusterLayout]) -> TrainedBundle:
    """Calibrate and cut the best weights on validation, on a worker; write them as a bundle."""
    current_observer().begin("bundle", 1, unit="file")
    client, _ = cluster
    (task, *_), (address, *_) = _placed(job, client)
    alone = replace(task, world=1, rendezvous="")
    future = client.submit(
        make_bundle,
        alone,
        job.directory.draft.resolve(),
        workers=[address],
        allow_other_workers=False,
        pure=False,
        key=_key("bundle", 0),
    )
    try:
        while not future.done():
            raise_if_stopped()
            _require_workers([address], client)
            time.sleep(_LOOK_S)
        _raise_first([future], client)
    except BaseException:
        _end_workers([future], [address], client)
        raise
    trained = future.result()
    assert isinstance(trained, TrainedBundle)
    current_observer().end(
        f"F1 {trained.validation.f1:.3f} on validation at probability {trained.bundle.threshold:.3f}, calibration "
        f"error {trained.before.error:.3f} → {trained.after.error:.3f}"
    )
    return trained

"""What a worker does in training: one rank of it, or the bundle at its end."""

from __future__ import annotations

import fcntl
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dasnet.errors import TrainingError
from dasnet.networks.encoders.backbone_weights import load_backbone
from dasnet.prediction.bundle import load_bundle
from dasnet.training.loop import TrainingRun
from dasnet.training.parallel import Ranks
from dasnet.training.recipes import Recipe
from dasnet.training.trained_bundle import TrainedBundle, bundle_of
from flows.run.limits import limits
from flows.run.machine import cores
from flows.training.data import dataset_of, training_data
from flows.training.directory import LOCK, SAMPLES
from flows.training.sample_sheet import SampleSheet

_PATIENCE = timedelta(minutes=10)
_PART_OF_MEMORY = 4
"""One part in so many of the free memory may hold samples."""


@dataclass(frozen=True, kw_only=True)
class RankTask:
    """Everything a rank needs; travels to its worker.

    Attributes:
        directory: where checkpoints and history lie.
        rendezvous: ``tcp://host:port`` where the ranks meet; empty = there is one.
        neighbours: ranks on this worker's machine.
        threads: torch's own on a CPU; None = a rank's share of the cores.
        from_bundle: name or path of the bundle that is gone on from; None = there is none.
        cuda: whether the worker has a GPU of its own.
    """

    recipe: Recipe
    dataset: Path
    directory: Path
    backbone_weights: Path | None
    from_bundle: str | None
    rank: int
    world: int
    rendezvous: str
    neighbours: int
    threads: int | None
    cuda: bool

    def training_run(self) -> TrainingRun:
        bundle = None if self.from_bundle is None else load_bundle(self.from_bundle)
        store = dataset_of(self.dataset, bundle, name=self.from_bundle or "")
        data = training_data(store, self.recipe, bundle)
        initial = None if bundle is None else dict(bundle.state)
        if self.backbone_weights is not None and (backbone := self.recipe.backbone) is not None:
            names = [name for name, _, _ in data.bands]
            initial = load_backbone(self.backbone_weights, backbone, in_bands=len(names), bands=names)
        available = self.threads or max(cores() // self.neighbours, 1)
        return TrainingRun(
            recipe=self.recipe,
            data=data,
            source=store,
            changed=store.changed("train"),
            directory=self.directory,
            ranks=Ranks(rank=self.rank, world=self.world),
            device="cuda:0" if self.cuda else "cpu",
            threads=1 if self.cuda else available,
            loader_threads=max(available - 1, 1) if self.cuda else 1,
            memory=limits().free_memory // (_PART_OF_MEMORY * self.neighbours),
            shard=store.shard,
            initial=initial,
            on_epoch=SampleSheet(store, self.directory / SAMPLES) if self.rank == 0 else None,
        )


def train_rank(task: RankTask) -> dict[str, Any]:
    """Run on a worker: one rank, from the last checkpoint to the end; returns where it stands."""
    _tell_the_driver_alone()
    with _directory_held(task), _ranks_met(task):
        return asdict(task.training_run().run())


def make_bundle(task: RankTask, path: Path) -> TrainedBundle:
    """Run on a worker: the bundle of a finished training, without card."""
    _tell_the_driver_alone()
    return bundle_of(task.training_run(), path)


def _tell_the_driver_alone() -> None:
    """What fails is told once, by the flow; a worker would print it too, with a traceback."""
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)


def has_gpu() -> bool:
    """Run on a worker: whether it can train on a GPU of its own."""
    return torch.cuda.is_available()


def free_port() -> int:
    """Run on the first rank's worker: a port that the ranks can meet at."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _directory_held(task: RankTask) -> Iterator[None]:
    """A worker may outlive the flow that sent it here: two must not train into one directory."""
    if task.rank:
        yield
        return
    task.directory.mkdir(parents=True, exist_ok=True)
    with (task.directory / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"another process is still training in {task.directory}") from None
        yield


@contextmanager
def _ranks_met(task: RankTask) -> Iterator[None]:
    if task.world == 1:
        yield
        return
    dist.init_process_group(
        "nccl" if task.cuda else "gloo",
        init_method=task.rendezvous,
        rank=task.rank,
        world_size=task.world,
        timeout=_PATIENCE,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()

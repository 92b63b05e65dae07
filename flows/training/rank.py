"""What a worker does in training: one rank of it, or the bundle at its end."""

from __future__ import annotations

import fcntl
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from dasnet.errors import TrainingError
from dasnet.networks.backbone_weights import load_backbone
from dasnet.networks.change_network import ChangeNetwork
from dasnet.training.class_frequency import ClassFrequency
from dasnet.training.loop import TrainingRun
from dasnet.training.parallel import Ranks
from dasnet.training.recipes import Recipe, TrainingData
from dasnet.training.samples import assemble
from dasnet.training.trained_bundle import TrainedBundle, bundle_of
from dasnet.training.validation import pixel_distances
from flows.dataset.class_weights import ATTRIBUTE
from flows.run.machine import cores
from storage.datasets.store import DatasetStore, few_of
from storage.pages.contact_sheet import Panel, contact_sheet
from storage.places.publish import publish

SAMPLES = "samples.png"
_SHOWN = 6
_IMAGENET = ((123.675, 58.395), (116.28, 57.12), (103.53, 57.375))
_PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class RankTask:
    """Everything a rank needs; travels to its worker.

    Attributes:
        directory: of checkpoints and history.
        rendezvous: ``tcp://host:port`` where the ranks meet; empty = there is one.
        neighbours: ranks on this worker's machine; `threads`: of each on a CPU, None = its share of the cores.
        cuda: whether the worker has a GPU of its own.
    """

    recipe: Recipe
    dataset: Path
    directory: Path
    backbone_weights: Path | None
    rank: int
    world: int
    rendezvous: str
    neighbours: int
    threads: int | None
    cuda: bool

    def training_run(self) -> TrainingRun:
        store = DatasetStore(self.dataset)
        data = training_data(store, self.recipe)
        initial = None
        if self.backbone_weights is not None:
            initial = load_backbone(self.backbone_weights, self.recipe.backbone, in_bands=len(data.bands))
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
            initial=initial,
            on_epoch=SampleSheet(store, self.directory / SAMPLES) if self.rank == 0 else None,
        )


def training_data(store: DatasetStore, recipe: Recipe) -> TrainingData:
    """What training needs to know of a dataset.

    Raises:
        TrainingError: a band without variation, or a training split of one class.
    """
    bands = tuple((str(b["name"]), float(b["mean"]), float(b["std"])) for b in store.attrs["bands"])
    if recipe.normalisation == "imagenet":
        if len(bands) != 3 or store.dtype != "uint8":
            raise TrainingError(
                f"ImageNet's normalisation is of three bands of uint8, {store.path} has {len(bands)} of {store.dtype}"
            )
        bands = tuple((name, *values) for (name, _, _), values in zip(bands, _IMAGENET, strict=True))
    flat = [name for name, _, std in bands if not std > 0]
    if flat:
        raise TrainingError(f"{store.path}: band {', '.join(flat)} has one value in all of the training split")
    counts = store.attrs.get(ATTRIBUTE, store.attrs["counts"])["train"]
    frequency = ClassFrequency(changed=int(counts["changed"]), unchanged=int(counts["unchanged"]))
    try:
        recipe.loss_of(frequency)
    except ValueError as error:
        raise TrainingError(f"{store.path}, training split: {error}") from error
    return TrainingData(
        bands=bands,
        dtype=store.dtype,
        window=store.window,
        frequency=frequency,
        digest=store.digest,
        resolution=store.resolution,
    )


class SampleSheet:
    """After an epoch: a picture of the same few validation samples, so that one sees the network learn."""

    def __init__(self, store: DatasetStore, path: Path) -> None:
        changed = store.changed("val")
        self._indices = few_of(changed if len(changed) else store.indices("val"), _SHOWN)
        self._store, self._path = store, path

    @torch.inference_mode()
    def __call__(
        self, model: nn.Module, normalise: Callable[[Any], torch.Tensor], cut: float, device: torch.device
    ) -> None:
        assert isinstance(model, ChangeNetwork)
        was_training = model.training
        model.eval()
        batch = assemble(self._store, self._indices, None, [0] * len(self._indices))
        fine = pixel_distances(model, normalise(batch.to(device))).clamp(0, 2).cpu().numpy()
        model.train(was_training)
        samples = self._store.read(self._indices)
        panels = [
            Panel(
                before=samples.before[n],
                after=samples.after[n],
                valid=samples.valid[n],
                label=samples.label[n],
                probability=fine[n] / 2,
                threshold=cut / 2,
                caption=f"{self._store.sources[index]}: before, after, label, distance / 2, judged",
            )
            for n, index in enumerate(self._indices)
        ]
        with publish(self._path) as draft:
            draft.write_bytes(contact_sheet(panels, bands=self._store.bands, columns=1))


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
    with (task.directory / ".lock").open("a+") as file:
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

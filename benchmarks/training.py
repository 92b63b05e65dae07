"""How fast is training against the authors' way: a plain eager float32 loop of the same network, batch and machine?

python -m benchmarks.training --backbone mobilenet_v3 --steps 30
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import machine
from dasnet.networks.dasnet import DASNet, Distances
from dasnet.training.augmentation import PSEUDO_CHANGES, Augmentation
from dasnet.training.class_frequency import ClassFrequency
from dasnet.training.directory import HISTORY
from dasnet.training.loop import TrainingRun
from dasnet.training.parallel import Ranks
from dasnet.training.recipes import Recipe, TrainingData
from dasnet.training.samples import KeptSamples, Order, SampleSource, prefetched
from storage.datasets.create import create_dataset
from storage.datasets.store import LEFT_OUT, DatasetStore, Samples

_MEMORY = 1 << 32
"""Bytes of samples that may be kept."""


def store_of(folder: Path, *, count: int, side: int) -> DatasetStore:
    """A dataset of noise: what it shows does not matter for speed."""
    create_dataset(
        folder / "dataset.zarr",
        sources=["noise"] * count,
        rows=[0] * count,
        cols=[0] * count,
        window=side,
        bands=["red", "green", "blue"],
        dtype="uint8",
        shard=32,
        attrs={},
    )
    store = DatasetStore(folder / "dataset.zarr")
    random = np.random.default_rng(0)
    for first in range(0, count, 32):
        n = min(32, count - first)
        images = random.integers(1, 255, (2, n, 3, side, side), dtype=np.uint8)
        label = (random.random((n, side, side)) < 0.1).astype(np.uint8)
        valid = np.ones((n, 2, side, side), dtype=bool)
        store.write(first, Samples(before=images[0], after=images[1], valid=valid, label=label))
    splits = np.zeros(count, dtype=np.int8)
    splits[-8:] = 1
    assert LEFT_OUT not in splits
    store.finish(splits, changed=[1] * count, unchanged=[1] * count, attrs={"digest": "noise"})
    return store


class Without:
    """A source whose validation is as small as can be, so that training alone is timed."""

    def __init__(self, store: DatasetStore) -> None:
        self._store = store

    def indices(self, split: str) -> NDArray[np.int64]:
        return self._store.indices(split)[: None if split == "train" else 1]

    def read(self, indices: Sequence[int]) -> Samples:
        return self._store.read(indices)


def ours(recipe: Recipe, source: Without, side: int, device: str, threads: int) -> tuple[float, float]:
    """Pairs a second of training, and the share of the time that the device computes."""
    import json

    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(
            recipe=recipe,
            data=TrainingData(
                bands=tuple((name, 128.0, 70.0) for name in ("red", "green", "blue")),
                dtype="uint8",
                window=side,
                frequency=ClassFrequency(changed=1, unchanged=9),
                digest="noise",
            ),
            source=source,
            changed=source.indices("train"),
            directory=Path(folder),
            ranks=Ranks(),
            device=device,
            threads=threads,
            loader_threads=max(threads - 1, 1) if device != "cpu" else 1,
            memory=_MEMORY,
        )
        run.run()
        lines = [json.loads(line) for line in (Path(folder) / HISTORY).read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "epoch"][-1]
    return last["pairs_per_s"], last["device_share"]


def theirs(recipe: Recipe, side: int, steps: int, device: str, threads: int) -> float:
    """Pairs a second of a plain loop: eager, float32, both dates one after the other, data at hand already."""
    torch.set_num_threads(threads)
    model = DASNet(recipe.network.architecture(3)).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loss_of = recipe.loss_of(ClassFrequency(changed=1, unchanged=9))
    side = recipe.augmentation.crop or side
    before, after = (torch.randn(recipe.sampling.batch, 3, side, side, device=device) for _ in range(2))
    labels = (torch.rand(recipe.sampling.batch, side, side, device=device) < 0.1).to(torch.uint8)
    began = 0.0
    for step in range(steps + 2):
        if step == 2:
            if device != "cpu":
                torch.cuda.synchronize()
            began = time.perf_counter()
        a, b = model.embed(before), model.embed(after)
        loss = loss_of(Distances(*(model.distance(x, y) for x, y in zip(a, b, strict=True))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return steps * recipe.sampling.batch / (time.perf_counter() - began)


def loader(recipe: Recipe, source: SampleSource, threads: int, device: str = "cpu") -> float:
    """Pairs a second that are read and augmented when nobody computes."""
    order = Order(recipe=recipe, samples=source.indices("train"), changed=source.indices("train"))
    shown = order.of_epoch(0)
    work = [
        ([int(i) for i in row], [order.seed(0, step, place) for place in range(len(row))])
        for step, row in enumerate(shown)
    ]
    began = time.perf_counter()
    for _ in prefetched(source, work, augmentation=recipe.augmentation, threads=threads, device=torch.device(device)):
        pass
    if device != "cpu":
        torch.cuda.synchronize()
    return shown.size / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v3")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--crop", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    recipe = Recipe.of(
        backbone=arguments.backbone,
        batch=arguments.batch,
        epochs=2,  # the first one warms up
        samples_per_epoch=arguments.batch * arguments.steps,
        precision=arguments.precision,
        compile=arguments.compile,
        augmentation=Augmentation(**{**PSEUDO_CHANGES.__dict__, "crop": arguments.crop}),
    )
    with tempfile.TemporaryDirectory() as folder:
        source = Without(store_of(Path(folder), count=arguments.batch * arguments.steps + 8, side=arguments.side))
        readers = 1 if arguments.device == "cpu" else max(arguments.threads - 1, 1)
        kept = KeptSamples(source, memory=_MEMORY)
        stored, alone = (loader(recipe, kept, readers, arguments.device) for _ in range(2))
        rate, busy = ours(recipe, source, arguments.side, arguments.device, arguments.threads)
    peer = theirs(recipe, arguments.side, arguments.steps, arguments.device, arguments.threads)
    print(
        f"training {arguments.backbone}, {arguments.crop or arguments.side} px, batch {arguments.batch}, "
        f"{arguments.precision}{', compiled' if arguments.compile else ''}: {rate:.2f} pairs/s, {rate / peer:.2f} "
        f"times a plain eager float32 loop ({peer:.2f}); the loader alone {stored:.0f} pairs/s, "
        f"{alone:.0f} of samples in memory; the device computes "
        f"{busy:.1%} of the time; {machine()}"
    )


if __name__ == "__main__":
    main()

"""A small dataset in memory: squares that appear are changes, brightness that differs is none."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dasnet.networks.methods import build_network
from dasnet.training.augmentation import Augmentation
from dasnet.training.class_frequency import ClassFrequency
from dasnet.training.loop import TrainingRun
from dasnet.training.parallel import Ranks
from dasnet.training.recipes import Recipe, TrainingData

SIDE = 64


@dataclass(frozen=True)
class Stored:
    before: NDArray[Any]
    after: NDArray[Any]
    valid: NDArray[np.bool_]
    label: NDArray[np.uint8]


class Squares:
    """Samples 0 … 15 train, 16 … 21 val; a dasnet.training.samples.SampleSource."""

    def __init__(self, *, train: int = 16, val: int = 6) -> None:
        self.train, self.val = train, val
        random = np.random.default_rng(7)
        count = train + val
        ground = random.integers(60, 110, (count, 3, SIDE, SIDE))
        self.label = np.zeros((count, SIDE, SIDE), dtype=np.uint8)
        for number in range(count):
            y, x = random.integers(4, SIDE - 34, 2)
            self.label[number, y : y + 28, x : x + 28] = 1
        self.before = ground.astype(np.uint8)
        later = ground + random.integers(-15, 15, (count, 3, 1, 1)) + 120 * self.label[:, None]
        self.after = np.clip(later, 1, 255).astype(np.uint8)
        self.valid = np.ones((count, 2, SIDE, SIDE), dtype=bool)
        self.valid[1, 0, :, :20] = False
        self.label[1, :, :20] = 255

    def indices(self, split: str) -> NDArray[np.int64]:
        return np.arange(self.train) if split == "train" else self.train + np.arange(self.val)

    def read(self, indices: Sequence[int]) -> Stored:
        chosen = list(indices)
        return Stored(self.before[chosen], self.after[chosen], self.valid[chosen], self.label[chosen])

    @property
    def frequency(self) -> ClassFrequency:
        labels = self.label[: self.train]
        return ClassFrequency(changed=int((labels == 1).sum()), unchanged=int((labels == 0).sum()))


def recipe(**changes: Any) -> Recipe:
    usual = {
        "name": "test",
        "backbone": "mobilenet_v3",
        "head_channels": 16,
        "rate": 2e-3,
        "epochs": 3,
        "batch": 4,
        "augmentation": Augmentation(crop=32, haze=0.2, season=0.1),
    }
    return Recipe.of(**{**usual, **changes})


_RANK = """
import sys
from pathlib import Path
import torch.distributed as dist
from dasnet.training.parallel import Ranks
from tests.dasnet.training.training_data import run_of
rank, port, directory, options = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), eval(sys.argv[4])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
run_of(directory, ranks=Ranks(rank=rank, world=2), **options).run()
dist.destroy_process_group()
"""


def run_two_ranks(directory: Path, **options: Any) -> None:
    """:func:`run_of` with these options, by two processes that train one network."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        subprocess.Popen([sys.executable, "-c", _RANK, str(rank), str(port), str(directory), repr(options)])
        for rank in range(2)
    ]
    assert [process.wait(timeout=200) for process in ranks] == [0, 0]


def run_of(
    directory: Path,
    *,
    ranks: Ranks | None = None,
    source: Squares | None = None,
    start: int | None = None,
    **changes: Any,
) -> TrainingRun:
    """A training run; `start`: from an encoder's weights that are a function of this number."""
    source, made = source or Squares(), recipe(**changes)
    initial = None
    if start is not None:
        with torch.random.fork_rng():
            torch.manual_seed(start)
            state = build_network(made.network.architecture(3)).state_dict()
        initial = {name: value for name, value in state.items() if name.startswith("backbone.")}
    return TrainingRun(
        recipe=made,
        data=TrainingData(
            bands=tuple((name, 95.0, 35.0) for name in ("red", "green", "blue")),
            dtype="uint8",
            window=SIDE,
            frequency=source.frequency,
            digest="squares",
        ),
        source=source,
        changed=source.indices("train"),
        directory=directory,
        ranks=ranks or Ranks(),
        initial=initial,
    )

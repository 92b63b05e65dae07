"""Samples to batches: which samples make each step, read and augmented ahead of the device by threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dasnet.samples import SampleSource
from dasnet.training.augment import Sample
from dasnet.training.augmentation import Augmentation
from dasnet.training.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pairs ready for the device.

    Attributes:
        indices: which samples.
        images: (2b, C, s, s) float32, in the images' own units, the first b those of the first date.
        valid: (2b, 1, s, s) bool.
        labels: (b, s, s) uint8: 1, 0, 255.
    """

    indices: tuple[int, ...]
    images: Tensor
    valid: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        return Batch(
            indices=self.indices,
            images=self.images.pin_memory().to(device, non_blocking=True),
            valid=self.valid.pin_memory().to(device, non_blocking=True),
            labels=self.labels.pin_memory().to(device, non_blocking=True),
        )


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which samples an epoch shows, in which order: a function of recipe and epoch alone, so that resuming keeps it.

    Attributes:
        samples: indices of the training split.
        changed: those of them with a changed pixel.
    """

    recipe: Recipe
    samples: NDArray[np.int64]
    changed: NDArray[np.int64]

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return self.recipe.sampling.steps_of_epoch(len(self.samples))

    def of_epoch(self, epoch: int) -> NDArray[np.int64]:
        """(steps, batch) indices."""
        random = np.random.default_rng([self.recipe.seed, epoch, 1])
        count = self.steps * self.recipe.sampling.batch
        if self.recipe.sampling.balance and len(self.changed):
            with_change = random.random(count) < self.recipe.sampling.balance
            chosen = np.where(with_change, random.choice(self.changed, count), random.choice(self.samples, count))
        else:
            rounds = -(-count // len(self.samples))
            chosen = np.concatenate([random.permutation(self.samples) for _ in range(rounds)])[:count]
        return chosen.reshape(self.steps, self.recipe.sampling.batch).astype(np.int64)

    def seed(self, epoch: int, step: int, position: int) -> int:
        """Seed of the augmentation of one sample."""
        return int(np.random.SeedSequence([self.recipe.seed, epoch, step, position, 2]).generate_state(1)[0])


def assemble(
    source: SampleSource, indices: Sequence[int], augmentation: Augmentation | None, seeds: Sequence[int]
) -> Batch:
    """Read samples, augment each with its seed, stack them."""
    stored = source.read(indices)
    samples = [
        Sample(
            before=torch.from_numpy(stored.before[n]),
            after=torch.from_numpy(stored.after[n]),
            valid=torch.from_numpy(stored.valid[n]),
            label=torch.from_numpy(stored.label[n]),
        )
        for n in range(len(indices))
    ]
    if augmentation is not None:
        samples = [augmentation(sample, seed=seed) for sample, seed in zip(samples, seeds, strict=True)]
    images = torch.stack([s.before.float() for s in samples] + [s.after.float() for s in samples])
    valid = torch.stack([s.valid[0] for s in samples] + [s.valid[1] for s in samples])
    return Batch(
        indices=tuple(int(i) for i in indices),
        images=images,
        valid=valid[:, None],
        labels=torch.stack([s.label for s in samples]),
    )


def prefetched(
    source: SampleSource,
    work: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    augmentation: Augmentation | None,
    threads: int,
    ahead: int = 4,
) -> Iterator[Batch]:
    """Batches of `work`, (indices, seeds) each, in its order; read ahead by threads, at most `ahead` at a time."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="samples", initializer=_one_thread_each)
    waiting: deque[Future[Batch]] = deque()
    todo = iter(work)
    try:
        for indices, seeds in todo:
            waiting.append(pool.submit(assemble, source, indices, augmentation, seeds))
            if len(waiting) >= max(ahead, threads):
                break
        while waiting:
            batch = waiting.popleft().result()
            following = next(todo, None)
            if following is not None:
                waiting.append(pool.submit(assemble, source, following[0], augmentation, following[1]))
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_starting = threading.Lock()


def _one_thread_each() -> None:
    """These threads are the parallelism; torch's own inside each of them would only take cores from the network.

    torch keeps one number for the threads that ask later, and one that each thread already has: the first is put back.
    """
    with _starting:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        restored = threading.Thread(target=torch.set_num_threads, args=(before,))
        restored.start()
        restored.join()

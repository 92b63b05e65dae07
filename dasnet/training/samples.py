"""Samples to batches: which samples make each step, read and augmented ahead of the device by threads."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dasnet.samples import SampleSource, StoredSamples
from dasnet.training.augment import Sample, Stack, as_float, augmented, placed
from dasnet.training.augmentation import Augmentation
from dasnet.training.draws import Draws, drawn
from dasnet.training.recipes import Recipe

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Stack ready for the network.

    Attributes:
        indices: which samples.
        images: (2b, C, s, s) float32, in the images' own units, the first b those of the first date.
        valid: (2b, 1, s, s) bool.
        labels: (b, s, s) uint8: 1, 0, 255.
        made: when a GPU has made all of that; None: it is there.
    """

    indices: tuple[int, ...]
    images: Tensor
    valid: Tensor
    labels: Tensor
    made: torch.cuda.Event | None = None

    def ready(self) -> Batch:
        """Itself, after what the GPU's present stream does next has been told to wait for it."""
        if self.made is not None:
            stream = torch.cuda.current_stream(self.images.device)
            stream.wait_event(self.made)
            for tensor in (self.images, self.valid, self.labels):
                tensor.record_stream(stream)  # its memory was taken for another stream
        return self


@dataclass(frozen=True, kw_only=True)
class _Stored:
    before: NDArray[Any]
    after: NDArray[Any]
    valid: NDArray[np.bool_]
    label: NDArray[np.uint8]


_NAMES = ("before", "after", "valid", "label")


class KeptSamples:
    """A source that keeps what it has read, for all threads, as long as there is room.

    Args:
        memory: bytes of pixels that may be kept; samples that do not fit are read each time.
        shard: so many samples lie together from every multiple of it on. The first that is asked for brings those that
            lie beside it and will be asked for, which cost little more than the one, as long as all of them fit.
    """

    def __init__(self, source: SampleSource, *, memory: int, shard: int = 1) -> None:
        self._source, self._room, self._shard = source, memory, shard
        self._samples: dict[int, StoredSamples] = {}
        self._lock = threading.Lock()
        self._reading: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Samples of a split, ascending."""
        return self._source.indices(split)

    def read(self, indices: Sequence[int]) -> StoredSamples:
        """Samples in the order asked for; a single one is what is kept, and not to be written to."""
        samples = [self._one(int(index)) for index in indices]
        if len(samples) == 1:
            return samples[0]
        return _Stored(**{name: np.concatenate([getattr(sample, name) for sample in samples]) for name in _NAMES})

    def _one(self, index: int) -> StoredSamples:
        kept = self._samples.get(index)
        if kept is not None:
            return kept
        if self._shard > 1:
            self._keep_shard(index // self._shard)
        return self._samples.get(index) or self._keep(index, self._source.read([index]))

    def _keep(self, index: int, sample: StoredSamples) -> StoredSamples:
        size = _bytes(sample)
        with self._lock:
            if index not in self._samples and size <= self._room:
                self._samples[index] = sample
                self._room -= size
        return sample

    def _keep_shard(self, number: int) -> None:
        """Keep what training and validation need of a shard, if there is room for all of it."""
        with self._lock:
            reading = self._reading[number]
        with reading:  # other threads that need this shard wait for it instead of reading it too
            first, last = np.searchsorted(self._members, (number * self._shard, (number + 1) * self._shard))
            wanted = [index for index in self._members[first:last].tolist() if index not in self._samples]
            if len(wanted) < 2 or len(wanted) * self._size > self._room:
                return
            samples = self._source.read(wanted)
            for n, index in enumerate(wanted):
                self._keep(index, _Stored(**{name: getattr(samples, name)[n : n + 1] for name in _NAMES}))

    @cached_property
    def _members(self) -> NDArray[np.int64]:
        return np.sort(np.concatenate([self._source.indices(split) for split in ("train", "val")]))

    @cached_property
    def _size(self) -> int:
        """Bytes of a sample; all have as many."""
        return _bytes(self._source.read([int(self._members[0])]))


def _bytes(sample: StoredSamples) -> int:
    return sum(getattr(sample, name).nbytes for name in _NAMES)


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


@dataclass(frozen=True, kw_only=True)
class Crops:
    """What was read of a batch's samples, still in the stored type, and the numbers that augment it; on the CPU."""

    indices: tuple[int, ...]
    stack: Stack
    draws: Draws | None

    def batch(self, augmentation: Augmentation | None, device: torch.device) -> Batch:
        """Augmented on a device."""
        if device.type == "cpu":
            step = max(1, _AT_ONCE // self.stack.images[0].numel())
            starts = range(0, len(self.indices), step)
            parts = [self._made(slice(first, first + step), augmentation, device) for first in starts]
        else:
            parts = [self._made(slice(None), augmentation, device)]
        dates = [part.images.chunk(2) for part in parts]
        valid = [part.valid.chunk(2) for part in parts]
        one = len(parts) == 1
        return Batch(
            indices=self.indices,
            images=parts[0].images if one else torch.cat([part[date] for date in (0, 1) for part in dates]),
            valid=(parts[0].valid if one else torch.cat([part[date] for date in (0, 1) for part in valid]))[:, None],
            labels=parts[0].labels if one else torch.cat([part.labels for part in parts]),
        )

    def _made(self, samples: slice, augmentation: Augmentation | None, device: torch.device) -> Stack:
        count = len(self.indices)
        first, last, _ = samples.indices(count)
        here = self.stack
        if (first, last) != (0, count):
            rows = [*range(first, last), *range(count + first, count + last)]
            here = Stack(images=here.images[rows], valid=here.valid[rows], labels=here.labels[samples])
        if device.type != "cpu":
            here = Stack(
                images=_moved(here.images, device), valid=_moved(here.valid, device), labels=_moved(here.labels, device)
            )
        if augmentation is None or self.draws is None:
            return Stack(images=as_float(here.images), valid=here.valid, labels=here.labels)
        return augmented(here, self.draws[samples], augmentation)


_AT_ONCE = 1 << 16
"""Values of one date that a CPU augments at once: more do not stay in its caches."""


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True)


def read_crops(
    source: SampleSource, indices: Sequence[int], augmentation: Augmentation | None, seeds: Sequence[int]
) -> Crops:
    """Read samples, and of each what is shown, as it is to lie.

    Raises:
        ValueError: the crop is larger than the samples.
    """
    samples: list[Sample] = []
    draws: list[Draws] = []
    for index, seed in zip(indices, seeds, strict=False):
        stored = source.read([index])
        sample = Sample(
            before=torch.from_numpy(stored.before[0]),
            after=torch.from_numpy(stored.after[0]),
            valid=torch.from_numpy(stored.valid[0]),
            label=torch.from_numpy(stored.label[0]),
        )
        if augmentation is not None:
            bands, height, width = sample.before.shape
            place, numbers = drawn(seed, augmentation, bands=bands, height=height, width=width)
            sample = placed(sample, place)
            draws.append(numbers)
        samples.append(sample)
    return Crops(
        indices=tuple(int(index) for index in indices),
        stack=Stack(
            images=torch.stack([s.before for s in samples] + [s.after for s in samples]),
            valid=torch.stack([s.valid[0] for s in samples] + [s.valid[1] for s in samples]),
            labels=torch.stack([s.label for s in samples]),
        ),
        draws=Draws(numbers=torch.cat([d.numbers for d in draws]), seeds=torch.cat([d.seeds for d in draws]))
        if draws
        else None,
    )


_CPU = torch.device("cpu")


def assemble(
    source: SampleSource,
    indices: Sequence[int],
    augmentation: Augmentation | None,
    seeds: Sequence[int],
    device: torch.device = _CPU,
) -> Batch:
    """Read samples, augment each with its seed, all of them on a device."""
    return read_crops(source, indices, augmentation, seeds).batch(augmentation, device)


def prefetched(
    source: SampleSource,
    work: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    augmentation: Augmentation | None,
    threads: int,
    device: torch.device = _CPU,
    ahead: int = 4,
) -> Iterator[Batch]:
    """Batches of `work`, (indices, seeds) each, in its order, made ahead of the network.

    Threads read, at most `ahead` batches or one each. On a CPU they augment too. On a GPU that is the work of one more
    thread with a stream of its own, two batches ahead: copies and kernels run beside those of the network.
    """
    with ExitStack() as until_end:
        readers = until_end.enter_context(_pool(threads))
        if device.type == "cpu":
            yield from _in_turn(
                work, lambda task: readers.submit(assemble, source, task[0], augmentation, task[1]), max(ahead, threads)
            )
            return
        stream = torch.cuda.Stream(device)
        maker = until_end.enter_context(_pool(1))

        def make(crops: Future[Crops]) -> Batch:
            read = crops.result()
            with torch.cuda.stream(stream):
                return replace(read.batch(augmentation, device), made=stream.record_event())

        # reading runs ahead of making, which asks for what is read in the order of the work
        reading = _submitted(
            work, lambda task: readers.submit(read_crops, source, task[0], augmentation, task[1]), max(ahead, threads)
        )
        for batch in _in_turn(reading, lambda crops: maker.submit(make, crops), 2):
            yield batch.ready()


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="samples", initializer=_one_thread_each)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(tasks: Iterable[T], submit: Callable[[T], Future[R]], ahead: int) -> Iterator[Future[R]]:
    """Futures of tasks in their order; `ahead` of them are begun before the first is handed on."""
    waiting: deque[Future[R]] = deque()
    for task in tasks:
        waiting.append(submit(task))
        if len(waiting) > ahead:  # so many are under way while the one that is handed on is used
            yield waiting.popleft()
    yield from waiting


def _in_turn(tasks: Iterable[T], submit: Callable[[T], Future[R]], ahead: int) -> Iterator[R]:
    """Results of tasks in their order."""
    for future in _submitted(tasks, submit, ahead):
        yield future.result()


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

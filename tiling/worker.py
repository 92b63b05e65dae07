"""What a worker does with one block: read it with its halo, predict, write one shard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiling.grid import Block, BlockGrid, WindowLattice
from tiling.protocols import BlockSink, BlockSource, DatesSource, PairSink, Predictor


class BlockInference:
    """Callable of one worker: block index in, facts about the block out.

    Several threads of a worker call it at a time. At most `lanes` of them are inside the predictor; the others read
    the next block or write the last one meanwhile. One lane for a GPU; on CPU one for each core, because a predictor
    there computes with one thread so that its bits do not depend on how many cores there are.
    """

    def __init__(
        self,
        *,
        predictor: Predictor,
        source: BlockSource,
        sink: BlockSink,
        blocks: BlockGrid,
        lattice: WindowLattice,
        lanes: int,
    ) -> None:
        self.predictor = predictor
        self._source = source
        self._sink = sink
        self._blocks = blocks
        self._work = _Work(predictor=predictor, lattice=lattice, device=threading.Semaphore(lanes))

    def describe(self) -> Mapping[str, Any]:
        """The predictor's arithmetic."""
        return self.predictor.describe()

    def __call__(self, index: int) -> Mapping[str, Any]:
        """Compute block `index`.

        Returns:
            ``digest``: SHA-256 of the block's pixels; ``windows``, ``skipped``: computed and left out;
            ``disagreement``: the non-empty bins of :attr:`tiling.protocols.Prediction.disagreement`;
            ``read_s``, ``wait_s``, ``compute_s``, ``write_s``: seconds.
        """
        block = self._blocks[index]

        def write(probability: NDArray[np.uint8]) -> Mapping[str, Any]:
            return {"digest": self._sink.write_probability(probability, rows=block.box.rows, cols=block.box.cols)}

        return self._work.on(block, read=self._source.read_series, write=write, pairs=None)


@dataclass(frozen=True, kw_only=True)
class SeriesTask:
    """One block of a longer series: which dates to read, and which pairs of them are wanted.

    Attributes:
        block: index.
        dates: names.
        pairs: index of the earlier date, index of the later one, name of the pair.
    """

    block: int
    dates: tuple[str, ...]
    pairs: tuple[tuple[int, int, str], ...]

    @property
    def names(self) -> list[str]:
        """Of the pairs."""
        return [name for *_, name in self.pairs]


class SeriesInference:
    """As :class:`BlockInference`, of a series whose dates and pairs have names: each date is embedded once a task."""

    def __init__(
        self,
        *,
        predictor: Predictor,
        source: DatesSource,
        sink: PairSink,
        blocks: BlockGrid,
        lattice: WindowLattice,
        lanes: int,
    ) -> None:
        self.predictor = predictor
        self._source = source
        self._sink = sink
        self._blocks = blocks
        self._work = _Work(predictor=predictor, lattice=lattice, device=threading.Semaphore(lanes))

    def describe(self) -> Mapping[str, Any]:
        """The predictor's arithmetic."""
        return self.predictor.describe()

    def __call__(self, wanted: SeriesTask) -> Mapping[str, Any]:
        """Compute the pairs of a block; facts as of :class:`BlockInference`, but ``digests``: SHA-256 by pair."""
        block = self._blocks[wanted.block]
        rows, cols = block.box.rows, block.box.cols

        def write(probability: NDArray[np.uint8]) -> Mapping[str, Any]:
            return {
                "digests": {
                    name: self._sink.write_pair(name, pixels, rows=rows, cols=cols)
                    for (*_, name), pixels in zip(wanted.pairs, probability, strict=True)
                }
            }

        return self._work.on(
            block,
            read=partial(self._source.read_dates, wanted.dates),
            write=write,
            pairs=[(earlier, later) for earlier, later, _ in wanted.pairs],
        )


class _Reads(Protocol):
    def __call__(self, *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]: ...


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Read, predict, write, with the clock running."""

    predictor: Predictor
    lattice: WindowLattice
    device: threading.Semaphore

    def on(
        self,
        block: Block,
        *,
        read: _Reads,
        write: Callable[[NDArray[np.uint8]], Mapping[str, Any]],
        pairs: Sequence[tuple[int, int]] | None,
    ) -> Mapping[str, Any]:
        box = self.lattice.read_box(block.box)
        started = time.perf_counter()
        images, valid = read(rows=box.rows, cols=box.cols)
        ready = time.perf_counter()
        inner = block.box.relative_to(box)
        origins = self.lattice.origins_touching(block.box) - (box.y0, box.x0)
        with self.device:
            free = time.perf_counter()
            prediction = self.predictor.predict(
                images, valid, origins=origins, taper=self.lattice.taper, crop=(inner.rows, inner.cols), pairs=pairs
            )
        computed = time.perf_counter()
        facts = write(prediction.probability)
        written = time.perf_counter()
        return {
            **facts,
            "windows": prediction.windows_computed,
            "skipped": prediction.windows_skipped,
            "disagreement": {str(bin): int(n) for bin, n in enumerate(prediction.disagreement) if n},
            "read_s": round(ready - started, 4),
            "wait_s": round(free - ready, 4),
            "compute_s": round(computed - free, 4),
            "write_s": round(written - computed, 4),
        }

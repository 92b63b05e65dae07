"""What a worker does with one block: read it with its halo, predict, write one shard a pair."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tiling.carrying import Luggage, windows_of
from tiling.chosen import ChosenCells, with_passed_over
from tiling.grid import BlockGrid, Box, WindowLattice
from tiling.protocols import BringsBlocksAhead, CarriesWindows, CarryingPrediction, DatesStore, PairSink, Predictor


@dataclass(frozen=True, kw_only=True)
class SeriesTask:
    """One block of a series: which dates to read, and which pairs of them to compute.

    Attributes:
        block: index.
        dates: names.
        pairs: index of the earlier date, index of the later one, name of the pair.
        chain: name of the chain of which the block is a part now (tiling.carrying); None = of none.
        following: indices of the blocks that come after it in the chain.
    """

    block: int
    dates: tuple[str, ...]
    pairs: tuple[tuple[int, int, str], ...]
    chain: str | None = None
    following: tuple[int, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the pairs."""
        return [name for *_, name in self.pairs]


class SeriesInference:
    """Callable of one worker: a task in, facts about its block out. Each date is embedded once a task, and each window
    once a chain.

    Several threads of a worker call it at a time. At most `lanes` of them are inside the predictor, and as many more as
    it brings blocks ahead to its device; the others read the next block or write the last one meanwhile. One lane for a
    GPU; on CPU one for each core, because a predictor there computes with one thread so that its bits do not depend on
    how many cores there are.
    """

    def __init__(
        self,
        *,
        predictor: Predictor,
        source: DatesStore,
        sink: PairSink,
        blocks: BlockGrid,
        lattice: WindowLattice,
        lanes: int,
        chosen: ChosenCells | None = None,
        chains: int = 0,
    ) -> None:
        """A worker's tool.

        Args:
            chosen: what is computed; valid pixels elsewhere are stored as passed over. None = everything.
            chains: of how many chains it carries windows at a time; 0 = as many as there are lanes, and one.
        """
        self.predictor = predictor
        self._source, self._sink = source, sink
        self._blocks, self._lattice, self._chosen = blocks, lattice, chosen
        ahead = predictor.blocks_ahead if isinstance(predictor, BringsBlocksAhead) else 0
        self._device = threading.Semaphore(lanes + ahead)
        self._luggage: Luggage | None = None
        if isinstance(predictor, CarriesWindows) and predictor.carries_windows:
            self._luggage = Luggage(chains or lanes + ahead + 1)

    def describe(self) -> Mapping[str, Any]:
        """The predictor's arithmetic."""
        return self.predictor.describe()

    def __call__(self, task: SeriesTask) -> Mapping[str, Any]:
        """Compute the pairs of a block.

        Returns:
            ``digests``: SHA-256 of the block's pixels by pair; ``windows``, ``skipped``: computed and left out;
            ``disagreement``: the non-empty bins of :attr:`tiling.protocols.Prediction.disagreement`;
            ``read_s``, ``wait_s``, ``compute_s``, ``write_s``: seconds; to compute includes the way to a GPU and
            back, and to wait there for the block before. ``skipped`` are windows without a valid
            pixel, not those that a first pass has spared.
        """
        block = self._blocks[task.block]
        box = self._lattice.read_box(block.box)
        started = time.perf_counter()
        images, valid = self._source.read_dates(task.dates, rows=box.rows, cols=box.cols)
        ready = time.perf_counter()
        inner = block.box.relative_to(box)
        inner_part = (inner.rows, inner.cols)
        pairs = [(earlier, later) for earlier, later, _ in task.pairs]
        part: dict[str, Any] = {}
        if self._chosen is None:
            origins = self._lattice.origins_touching(block.box)
        else:
            origins, part["wanted"] = self._chosen.part_of(self._lattice, block.box, within=box)
        part |= self._carried(task, box)
        with self._device:
            free = time.perf_counter()
            prediction = self.predictor.predict(
                images,
                valid,
                origins=origins - (box.y0, box.x0),
                taper=self._lattice.taper,
                crop=inner_part,
                pairs=pairs,
                **part,
            )
        computed = time.perf_counter()
        if "leave" in part:
            self._leave(task, cast(CarryingPrediction, prediction).left)
        probability = prediction.probability
        if self._chosen is not None:
            both = np.stack([valid[one, *inner_part] & valid[other, *inner_part] for one, other in pairs])
            probability = with_passed_over(probability, valid=both, chosen=part["wanted"][inner_part])
        digests = {
            name: self._sink.write_pair(name, pixels, rows=block.box.rows, cols=block.box.cols)
            for name, pixels in zip(task.names, probability, strict=True)
        }
        written = time.perf_counter()
        return {
            "digests": digests,
            "windows": prediction.windows_computed,
            "skipped": prediction.windows_skipped,
            "disagreement": {str(bin): int(n) for bin, n in enumerate(prediction.disagreement) if n},
            "read_s": round(ready - started, 4),
            "wait_s": round(free - ready, 4),
            "compute_s": round(computed - free, 4),
            "write_s": round(written - computed, 4),
        }

    def _carried(self, task: SeriesTask, box: Box) -> dict[str, Any]:
        """What a predictor is told of windows that are carried; nothing, if it carries none."""
        if self._luggage is None or task.chain is None:
            return {}
        return {
            "corner": (box.y0, box.x0),
            "before": self._luggage.of(task.chain),
            "leave": windows_of(task.following, blocks=self._blocks, lattice=self._lattice),
        }

    def _leave(self, task: SeriesTask, left: Any) -> None:
        assert self._luggage is not None and task.chain is not None
        self._luggage.leave(task.chain, left if task.following else None)

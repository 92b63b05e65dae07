"""What a worker runs for ingest and infer, of a pair or of a series."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flows.inference.plate_tool import import_makers
from storage.imagery.rasters import GridReader
from tiling.chosen import ChosenCells
from tiling.grid import BlockGrid, WindowLattice
from tiling.protocols import DatesStore, PairSink, Predictor, SpreadsWindows
from tiling.worker import SeriesInference

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


@dataclass(frozen=True, kw_only=True)
class IngestTool:
    """On a worker: reads one block of one date once and writes its shard."""

    images: DatesStore
    readers: Mapping[str, GridReader]
    blocks: BlockGrid

    def __call__(self, item: tuple[str, int]) -> Mapping[str, Any]:
        """Read a block of (date, block index); a read that fails raises, and nothing is written then."""
        date, index = item
        box = self.blocks[index].box
        started = time.perf_counter()
        image, valid = self.readers[date].read(rows=box.rows, cols=box.cols)
        self.images.write_date(date, image, valid, rows=box.rows, cols=box.cols)
        return {"valid": int(valid.sum()), "seconds": round(time.perf_counter() - started, 4)}


def make_series_tool(
    make_predictor: Callable[[], Predictor],
    images: DatesStore,
    probabilities: PairSink,
    blocks: BlockGrid,
    lattice: WindowLattice,
    lanes: int,
    chosen: ChosenCells | None = None,
    chains: int = 0,
) -> SeriesInference:
    """Runs once on each worker: loads the model there. `chosen`, `chains`: as in tiling.worker.

    On CPU a predictor computes with one thread (tiling.worker says why); set here too, for workers that somebody else
    started without our environment.
    """
    import torch

    torch.set_num_threads(1)
    _reuse_freed_memory()
    threading.Thread(target=import_makers, name="imports", daemon=True).start()
    predictor = make_predictor()
    if isinstance(predictor, SpreadsWindows):
        predictor.spread(lanes)
    return SeriesInference(
        predictor=predictor,
        source=images,
        sink=probabilities,
        blocks=blocks,
        lattice=lattice,
        lanes=lanes,
        chosen=chosen,
        chains=chains,
    )


def _reuse_freed_memory() -> None:
    """Let glibc keep what a layer frees for the next layer.

    Dask starts workers with MALLOC_TRIM_THRESHOLD_=65536: every freed tensor then goes back to the system and its pages
    are faulted in again, which halves the speed of a light network.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_TRIM_THRESHOLD, 512 << 20)
            libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the highest that glibc takes

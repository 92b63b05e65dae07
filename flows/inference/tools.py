"""What a worker runs for ingest and infer, of a pair or of a series."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from storage.imagery.rasters import GridReader
from storage.places.bucket import Location
from storage.stores.by_name import ImagesByDate, ProbabilitiesByPair
from storage.stores.run_store import RunStore
from tiling.grid import BlockGrid, WindowLattice
from tiling.protocols import Predictor
from tiling.worker import BlockInference, SeriesInference

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


@dataclass(frozen=True, kw_only=True)
class IngestTool:
    """On a worker: reads one block of one date and writes its shard."""

    store: RunStore[Location]
    readers: tuple[GridReader, ...]
    blocks: BlockGrid

    def __call__(self, item: tuple[int, int]) -> Mapping[str, Any]:
        date, index = item
        box = self.blocks[index].box
        started = time.perf_counter()
        valid = ingest_block(self.store, self.readers[date], date, rows=box.rows, cols=box.cols)
        return {"valid": valid, "seconds": round(time.perf_counter() - started, 4)}


def make_inference_tool(
    make_predictor: Callable[[], Predictor],
    store: RunStore[Location],
    blocks: BlockGrid,
    lattice: WindowLattice,
    lanes: int,
) -> BlockInference:
    """Runs once on each worker: loads the model there.

    On CPU a predictor computes with one thread (tiling.worker says why); set here too, for workers that somebody else
    started without our environment.
    """
    torch.set_num_threads(1)
    _reuse_freed_memory()
    return BlockInference(
        predictor=make_predictor(), source=store, sink=store, blocks=blocks, lattice=lattice, lanes=lanes
    )


@dataclass(frozen=True, kw_only=True)
class SeriesIngestTool:
    """On a worker: reads one block of one date of an archive and writes its shard."""

    images: ImagesByDate
    readers: Mapping[str, GridReader]
    blocks: BlockGrid

    def __call__(self, item: tuple[str, int]) -> Mapping[str, Any]:
        name, index = item
        box = self.blocks[index].box
        started = time.perf_counter()
        valid = ingest_block(self.images.stores[name], self.readers[name], 0, rows=box.rows, cols=box.cols)
        return {"valid": valid, "seconds": round(time.perf_counter() - started, 4)}


def make_series_tool(
    make_predictor: Callable[[], Predictor],
    images: ImagesByDate,
    probabilities: ProbabilitiesByPair,
    blocks: BlockGrid,
    lattice: WindowLattice,
    lanes: int,
) -> SeriesInference:
    """As :func:`make_inference_tool`, for a series of named dates and pairs."""
    torch.set_num_threads(1)
    _reuse_freed_memory()
    return SeriesInference(
        predictor=make_predictor(), source=images, sink=probabilities, blocks=blocks, lattice=lattice, lanes=lanes
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


def ingest_block(store: RunStore[Location], reader: GridReader, time_index: int, *, rows: slice, cols: slice) -> int:
    """Read one block of one date once and write its shard; returns its valid pixels.

    Raises:
        ShortReadError: the raster delivered fewer pixels than it promised; nothing is written then.
    """
    image, valid = reader.read(rows=rows, cols=cols)
    store.write_image(time_index, image, valid, rows=rows, cols=cols)
    return int(valid.sum())

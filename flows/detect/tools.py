"""What a worker runs for a method without training, as a method or as a first pass: one pass over one sheet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dasnet.baselines.coarse import CELL, FACTOR, block_means, cell_statistics
from dasnet.baselines.detector import Detector
from dasnet.baselines.predictor import arithmetic
from dasnet.baselines.untrained import State, UntrainedMethod
from storage.imagery.rasters import GridReader
from storage.places.bucket import Location
from storage.stores.run_store import RunStore
from tiling.grid import BlockGrid, Box


class PairSource(Protocol):
    """Where the pixels of both dates come from, sheet by sheet."""

    def read(self, sheet: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        """before and after (C, h, w), and valid (h, w): there in both dates."""
        ...


@dataclass(frozen=True, kw_only=True)
class StoredPair:
    """The pair in a run's store."""

    store: RunStore[Location]

    def read(self, sheet: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        """See :class:`PairSource`."""
        images, valid = self.store.read_series(rows=sheet.rows, cols=sheet.cols)
        return images[0], images[1], valid[0] & valid[1]


@dataclass(frozen=True, kw_only=True)
class CoarseStoredPair:
    """The pair in a run's store, as means over :data:`dasnet.baselines.coarse.FACTOR` pixels each way."""

    store: RunStore[Location]

    def read(self, sheet: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        """See :class:`PairSource`; in strips, so that the whole sheet is never in memory."""
        parts = []
        for y in range(sheet.y0, sheet.y1, CELL):
            images, valid = self.store.read_series(rows=slice(y, min(y + CELL, sheet.y1)), cols=sheet.cols)
            parts.append(block_means(images[0], images[1], valid[0] & valid[1]))
        before, after, there = zip(*parts, strict=True)
        return np.concatenate(before, axis=1), np.concatenate(after, axis=1), np.concatenate(there)


@dataclass(frozen=True, kw_only=True)
class CoarseMosaics:
    """Two mosaics beside the run's, read on a grid of its coarse pixels."""

    before: GridReader
    after: GridReader

    def read(self, sheet: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        """See :class:`PairSource`."""
        rows, cols = (slice(span.start // FACTOR, -(-span.stop // FACTOR)) for span in (sheet.rows, sheet.cols))
        before, valid_before = self.before.read(rows=rows, cols=cols)
        after, valid_after = self.after.read(rows=rows, cols=cols)
        return before, after, valid_before & valid_after


@dataclass(frozen=True, kw_only=True)
class StatisticsTool:
    """On a worker: counts one sheet of both dates."""

    source: PairSource
    sheets: BlockGrid
    method: UntrainedMethod
    state: State

    def describe(self) -> Mapping[str, Any]:
        """The arithmetic, which workers must share."""
        return arithmetic()

    def __call__(self, index: int) -> Mapping[str, Any]:
        box = self.sheets[index].box
        started = time.perf_counter()
        tally = self.method.count(self.state, *self.source.read(box))
        return {"tally": tally.pack(), "seconds": round(time.perf_counter() - started, 4)}


def make_statistics_tool(
    source: PairSource, sheets: BlockGrid, method: UntrainedMethod, state: State
) -> StatisticsTool:
    """Runs once on each worker and pass. One thread each: more would add in another order."""
    threadpool_limits(limits=1, user_api="blas")
    return StatisticsTool(source=source, sheets=sheets, method=method, state=state)


@dataclass(frozen=True, kw_only=True)
class CellsTool:
    """On a worker: how much the cells of one sheet differ, by a method whose statistics are known."""

    source: PairSource
    sheets: BlockGrid
    detector: Detector

    def describe(self) -> Mapping[str, Any]:
        """The arithmetic, which workers must share."""
        return arithmetic()

    def __call__(self, index: int) -> Mapping[str, Any]:
        """``cells``: statistics of the sheet's cells, row by row; None where no pixel of both dates is valid."""
        started = time.perf_counter()
        before, after, valid = self.source.read(self.sheets[index].box)
        cells = cell_statistics(self.detector.statistic(before, after, valid), valid, side=CELL // FACTOR)
        rows = [[None if np.isnan(value) else float(value) for value in row] for row in cells]
        return {"cells": rows, "seconds": round(time.perf_counter() - started, 4)}


def make_cells_tool(source: PairSource, sheets: BlockGrid, detector: Detector) -> CellsTool:
    """Runs once on each worker."""
    threadpool_limits(limits=1, user_api="blas")
    return CellsTool(source=source, sheets=sheets, detector=detector)

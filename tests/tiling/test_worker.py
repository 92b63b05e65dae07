"""How many blocks of a worker are inside the predictor at a time; the rest of it is tested by whole runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiling.grid import BlockGrid, WindowLattice
from tiling.worker import SeriesInference, SeriesTask

GRID = BlockGrid(height=32, width=16, size=8)


class Meeting:
    """A predictor in which threads wait for each other: a block is through when `expected` are inside."""

    def __init__(self, expected: int) -> None:
        self.most = self._inside = 0
        self._lock, self._barrier = threading.Lock(), threading.Barrier(expected)

    def describe(self) -> Mapping[str, Any]:
        return {}

    def predict(self, images: NDArray[Any], valid: NDArray[np.bool_], **given: Any) -> Any:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        self._barrier.wait(timeout=20)
        with self._lock:
            self._inside -= 1
        return SimpleNamespace(
            probability=np.zeros((1, 8, 8), dtype=np.uint8),
            windows_computed=1,
            windows_skipped=0,
            disagreement=np.zeros(256, dtype=np.int64),
        )


class MeetingAhead(Meeting):
    """The same, with a block that is brought ahead."""

    blocks_ahead = 1


class Series:
    """Dates without a pixel of interest; what is written is counted."""

    def __init__(self) -> None:
        self.written: list[tuple[slice, slice]] = []

    def write_date(self, name: str, image: NDArray[Any], valid: NDArray[np.bool_], *, rows: slice, cols: slice) -> None:
        raise AssertionError("nothing is ingested here")

    def read_dates(self, names: Any, *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        return np.zeros((len(names), 1, *shape), dtype=np.uint8), np.ones((len(names), *shape), dtype=bool)

    def write_pair(self, name: str, probability: NDArray[np.uint8], *, rows: slice, cols: slice) -> str:
        self.written.append((rows, cols))
        return "0" * 64


@pytest.mark.parametrize(("predictor", "lanes", "inside"), [(Meeting, 2, 2), (MeetingAhead, 1, 2), (Meeting, 1, 1)])
def test_lanes_and_what_is_brought_ahead_are_inside_the_predictor(
    predictor: type[Meeting], lanes: int, inside: int
) -> None:
    meeting, series = predictor(inside), Series()
    lattice = WindowLattice(height=32, width=16, window=8, overlap=0)
    tool = SeriesInference(predictor=meeting, source=series, sink=series, blocks=GRID, lattice=lattice, lanes=lanes)
    tasks = [SeriesTask(block=index, dates=("a", "b"), pairs=((0, 1, "a-b"),)) for index in range(len(GRID))]
    with ThreadPoolExecutor(4) as threads:
        facts = list(threads.map(tool, tasks))
    assert meeting.most == inside
    assert len(series.written) == len(GRID) == sum(fact["windows"] for fact in facts)

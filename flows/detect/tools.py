"""What a worker runs for a method without training: one pass over one sheet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from dasnet.baselines.predictor import arithmetic
from dasnet.baselines.untrained import State, UntrainedMethod
from storage.places.bucket import Location
from storage.stores.run_store import RunStore
from tiling.grid import BlockGrid


@dataclass(frozen=True, kw_only=True)
class StatisticsTool:
    """On a worker: counts one sheet of both dates."""

    store: RunStore[Location]
    sheets: BlockGrid
    method: UntrainedMethod
    state: State

    def describe(self) -> Mapping[str, Any]:
        """The arithmetic, which workers must share."""
        return arithmetic()

    def __call__(self, index: int) -> Mapping[str, Any]:
        box = self.sheets[index].box
        started = time.perf_counter()
        images, valid = self.store.read_series(rows=box.rows, cols=box.cols)
        tally = self.method.count(self.state, images[0], images[1], valid[0] & valid[1])
        return {"tally": tally.pack(), "seconds": round(time.perf_counter() - started, 4)}


def make_statistics_tool(
    store: RunStore[Location], sheets: BlockGrid, method: UntrainedMethod, state: State
) -> StatisticsTool:
    """Runs once on each worker and pass. One thread each: more would add in another order."""
    threadpool_limits(limits=1, user_api="blas")
    return StatisticsTool(store=store, sheets=sheets, method=method, state=state)

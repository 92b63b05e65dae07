"""One worker of a shared cluster, lent to one flow at a time: several trainings beside each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from distributed import Client

from flows.cluster.layout import ClusterLayout
from flows.run.context import bound
from tiling.errors import ClusterLostError
from tiling.execute import workers_of

WORKERS_PATIENCE_S = 300.0
"""Seconds within which a running scheduler must have the workers that are waited for."""


@dataclass(frozen=True, kw_only=True)
class LentWorker:
    """One worker of a cluster that runs already, for a flow that runs beside others on it."""

    client: Client
    layout: ClusterLayout
    address: str


_lent: ContextVar[LentWorker | None] = ContextVar("lent_worker", default=None)


def lent_worker() -> LentWorker | None:
    """The worker that :func:`lending` gave, if any."""
    return _lent.get()


def lending(worker: LentWorker) -> AbstractContextManager[None]:
    """Let flows called inside use that cluster, where they would connect to their own, and train on that worker."""
    return bound(_lent, worker)


class FreeWorkers:
    """The workers of a cluster, each for one flow at a time. Several threads take from it."""

    def __init__(self, client: Client, layout: ClusterLayout) -> None:
        self._client, self._layout = client, layout
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[LentWorker]:
        """A worker that is alive and that nobody else has.

        Raises:
            ClusterLostError: there was none for a while.
        """
        until = time.monotonic() + WORKERS_PATIENCE_S
        while (address := self._take()) is None:
            if time.monotonic() > until:
                raise ClusterLostError(f"no worker of the cluster was free for {WORKERS_PATIENCE_S:.0f} s")
            time.sleep(1.0)
        try:
            yield LentWorker(client=self._client, layout=self._layout, address=address)
        finally:
            with self._lock:
                self._taken.discard(address)

    def _take(self) -> str | None:
        with self._lock:
            free = sorted(set(workers_of(self._client)) - self._taken)
            self._taken.update(free[:1])
            return free[0] if free else None

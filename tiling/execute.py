"""The bounded fan-out: a fixed number of blocks in flight on a Dask client, retries, quarantine.

There is no graph of the mosaic. The driver submits a block when another one ends, so its memory and the scheduler's do
not grow with the number of blocks.
"""

from __future__ import annotations

import logging
import math
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, Future, get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.scheduler import KilledWorker

from tiling.chaining import Chain, Chaining, Chains
from tiling.errors import ClusterLostError, UnlikeWorkerError

_COUNTING_S = 5.0
"""Seconds between two looks at how many workers there are."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one item ended: `result` is what the function returned, or `error` says why it is in quarantine."""

    name: str
    result: Mapping[str, Any] | None
    error: str | None
    attempts: int


def workers_of(client: Client) -> Mapping[str, Any]:
    """What the scheduler knows of each of its workers now, by address.

    Not ``client.scheduler_info``: every two seconds the client refreshes that without any worker, and who asks in such
    a moment is told that there are none.

    Raises:
        ClusterLostError: the scheduler does not answer.
    """
    try:
        identity: Mapping[str, Any] = client.sync(client.scheduler.identity, n_workers=-1)
    except (OSError, AttributeError) as error:  # it has no scheduler when it is closed
        raise ClusterLostError(f"the Dask scheduler does not answer any more: {error}") from error
    workers: Mapping[str, Any] = identity["workers"]
    return workers


class Equipment(WorkerPlugin):
    """What every worker of a run holds ready: `make` is called once on each worker, also on one that joins later.

    So a model is loaded once a worker, and a worker that the nanny restarted loads it again by itself.
    """

    idempotent = False

    def __init__(self, name: str, make: Callable[[], Callable[..., Mapping[str, Any]]]) -> None:
        self.name = name
        self._make = make
        self.tool: Callable[..., Mapping[str, Any]] | None = None
        self._failure: Exception | None = None

    def setup(self, worker: Any) -> None:
        # a block that fails is reported once, by the driver, after its last attempt
        logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
        try:
            self.tool = self._make()
        except Exception as error:
            # Dask lets a worker that joins later take tasks all the same, and tells nobody
            self._failure = error
            raise

    def teardown(self, worker: Any) -> None:
        self.tool = None

    def ready(self, address: str) -> Callable[..., Mapping[str, Any]]:
        """The tool.

        Raises:
            UnlikeWorkerError: this worker could not make it.
        """
        if self.tool is None:
            why = f"{type(self._failure).__name__}: {self._failure}" if self._failure else "it has been taken away"
            raise UnlikeWorkerError(f"worker {address} joined, but could not make its tool: {why}")
        return self.tool

    def describe(self) -> dict[str, Any]:
        """What the tool says of its arithmetic; nothing, if it has none."""
        describe = getattr(self.tool, "describe", dict)
        return dict(describe())


def use_equipment(
    equipment: str, item: Any, arithmetic: Mapping[str, Any] | None = None
) -> tuple[str, Mapping[str, Any]]:
    """Run on a worker: give `item` to the tool that `equipment` made there; returns the worker's address, and what the
    tool does.

    Raises:
        UnlikeWorkerError: this worker could not make the tool, or it describes another arithmetic than `arithmetic`.
    """
    worker = get_worker()
    plugin = worker.plugins[equipment]
    assert isinstance(plugin, Equipment)
    tool = plugin.ready(worker.address)
    if arithmetic is not None and (described := plugin.describe()) != arithmetic:
        raise UnlikeWorkerError(
            f"worker {worker.address} joined, but computes otherwise than those before it: "
            f"{described}, not {arithmetic}"
        )
    try:
        return worker.address, tool(item)
    except Exception as error:
        # a cause that cannot be pickled (rasterio has such) would cost the error its type on the way back
        error.__cause__ = error.__context__ = None
        raise


@dataclass
class _Job:
    name: str
    item: Any
    attempts: int = 0
    suspected: bool = False
    chain: Chain | None = None


@dataclass
class BoundedRunner:
    """Runs `items` through a worker's equipment with at most `in_flight` of them submitted at a time.

    An item that raises is tried again after all that wait, up to `retries` times, then it is in quarantine: its
    outcome carries the error and the others go on. An item during which workers died is suspected of killing them;
    suspects wait until all others are done and then run alone, so that they take no innocent item with them; one that
    kills its worker again is in quarantine at once.

    Args:
        client: a connected client.
        equipment: name of an :class:`Equipment` registered with the client.
        items: (name, item) pairs; consumed lazily.
        in_flight: items submitted at a time, at least.
        per_worker: the same for each worker of the moment, for clusters that grow while they work.
        arithmetic: what every worker's tool must say of itself; None = they are not asked.
        only: address of the one worker that takes items, where others have other work; None = all of them.
        retries: further attempts after the first.
        chaining: how items follow each other on one worker; None = each goes where there is room.
        patience_s: seconds without any worker after which :class:`ClusterLostError` is raised.
    """

    client: Client
    equipment: str
    items: Iterable[tuple[str, Any]]
    in_flight: int
    per_worker: int = 0
    retries: int = 2
    patience_s: float = 300.0
    arithmetic: Mapping[str, Any] | None = None
    only: str | None = None
    chaining: Chaining | None = None
    _waiting: Chains = field(init=False)
    _again: deque[_Job] = field(init=False, default_factory=deque)
    _suspects: deque[_Job] = field(init=False, default_factory=deque)
    _running: dict[str, tuple[_Job, Future]] = field(init=False, default_factory=dict)
    _finished: queue.SimpleQueue[str] = field(init=False, default_factory=queue.SimpleQueue)
    _workers: int = field(init=False, default=0)
    _counted: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        if self.in_flight < 1 or self.retries < 0:
            raise ValueError(f"in_flight {self.in_flight} must be at least 1 and retries {self.retries} at least 0")
        self._waiting = Chains(self.items, self.chaining)

    def advance(self, count: int) -> Iterator[Outcome]:
        """Yield the next `count` outcomes, or fewer when no item is left.

        Between two calls the items in flight stay in flight: cutting a stage into batches costs no idle time.
        """
        for _ in range(count):
            outcome = self._next_outcome()
            if outcome is None:
                return
            yield outcome

    def cancel(self) -> None:
        """Take back what is in flight; running blocks end by themselves, nobody records them."""
        futures = [future for _, future in self._running.values()]
        self._running.clear()
        if futures and self.client.status == "running":
            self.client.cancel(futures, force=True)

    def _next_outcome(self) -> Outcome | None:
        while True:
            self._fill()
            if not self._running:
                return None
            job, future = self._running.pop(self._wait_for_one())
            job.attempts += 1
            chain, job.chain = job.chain, None
            if future.status == "finished":
                worker, result = future.result()
                if chain is not None:
                    self._waiting.go_on(chain, worker)
                return Outcome(name=job.name, result=result, error=None, attempts=job.attempts)
            if chain is not None:
                self._waiting.go_on(chain, None)
            error = self._error_of(future)
            if isinstance(error, UnlikeWorkerError):
                raise error
            killer = isinstance(error, KilledWorker)
            convicted = killer and job.suspected
            job.suspected = killer
            if convicted or job.attempts > self.retries:
                return Outcome(
                    name=job.name, result=None, error=f"{type(error).__name__}: {error}", attempts=job.attempts
                )
            (self._suspects if killer else self._again).append(job)

    @staticmethod
    def _error_of(future: Future) -> BaseException:
        if future.status == "error":
            error = future.exception()
            if isinstance(error, BaseException):
                return error
        return ClusterLostError(f"the task was {future.status}")

    def _fill(self) -> None:
        while len(self._running) < max(self.in_flight, self.per_worker * self._count_workers()):
            job = self._next_job()
            if job is None:
                return
            key = f"{self.equipment}-{job.name}-{job.attempts}"
            item, worker = job.item, self.only
            if self.chaining is not None and job.chain is not None:
                item = self.chaining.link(item, job.chain.name, [item for _, item in job.chain.waiting])
                worker = worker or job.chain.worker
            future = self.client.submit(
                use_equipment,
                self.equipment,
                item,
                self.arithmetic,
                key=key,
                pure=False,
                workers=worker,
                # the worker of a chain may be gone; any other computes the same bytes
                allow_other_workers=worker is not None and self.only is None,
            )
            self._running[key] = (job, future)
            future.add_done_callback(lambda done: self._finished.put(done.key))

    def _count_workers(self, *, now: bool = False) -> int:
        if now or (self.per_worker and time.monotonic() - self._counted > _COUNTING_S):
            workers = workers_of(self.client)
            self._workers = len(workers) if self.only is None else int(self.only in workers)
            self._counted = time.monotonic()
        return self._workers

    def _next_job(self) -> _Job | None:
        chain = self._waiting.next()
        if chain is None and self._again:
            return self._again.popleft()
        chain = chain or self._waiting.half(running=len(self._running), workers=max(self._workers, 1))
        if chain is not None:
            name, item = chain.waiting.popleft()
            return _Job(name=name, item=item, chain=chain)
        if self._suspects and not self._running:
            return self._suspects.popleft()
        return None

    def _wait_for_one(self) -> str:
        alone_since: float | None = None
        while True:
            try:
                key = self._finished.get(timeout=2.0)
            except queue.Empty:
                if self.client.status != "running":
                    raise ClusterLostError("the connection to the Dask scheduler is closed") from None
                if self._count_workers(now=True):
                    alone_since = None
                    continue
                alone_since = alone_since or time.monotonic()
                if time.monotonic() - alone_since > self.patience_s:
                    raise ClusterLostError(f"no worker for {self.patience_s:.0f} s") from None
            else:
                if key in self._running:
                    return key

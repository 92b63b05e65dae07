"""Ingest and infer: a stage's blocks through the cluster, in at most some hundred Prefect tasks."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from distributed import Client, Scheduler, Worker
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.cluster.connect import ClusterLayout, connect, lent_worker
from flows.run.artifacts import LiveProgress, show_dashboard
from flows.run.errors import ClusterError
from flows.run.fields import ClusterConfig
from flows.run.reporting import Reporter
from storage.imagery.rasters import GridReader
from storage.ingest import ingest_block
from storage.places.bucket import Location
from storage.stores.by_name import ImagesByDate, ProbabilitiesByPair
from storage.stores.run_store import RunStore
from tiling.execute import BoundedRunner, Equipment, Outcome
from tiling.grid import BlockGrid, WindowLattice
from tiling.ledger import Entry, Ledger
from tiling.protocols import Predictor
from tiling.worker import BlockInference, SeriesInference

# The Prefect UI stays readable, and its API quiet, at a million blocks.
MAX_BATCHES = 100

MIN_BATCH = 25
"""Blocks: a task costs Prefect some 20 ms, which fewer blocks would feel (benchmarks/orchestration.py)."""

_WORKERS_LOST = 3
"""How often in a row a worker may vanish while all are asked something."""

_BROUGHT_BY = "-of-dasnet-"
"""In names of equipment before the id of the client that brought it."""

T = TypeVar("T")

ConnectCluster = Callable[[], tuple[Client, ClusterLayout]]

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


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """How a stage ended.

    Attributes:
        computed: blocks finished now; `done`: in all.
        failed: errors of the quarantined blocks, by name.
        seconds: from when every worker had its tool (cluster, imports, model).
    """

    computed: int
    done: int
    failed: Mapping[str, str]
    seconds: float


def when_needed(config: ClusterConfig, until: contextlib.ExitStack) -> ConnectCluster:
    """Connects when a first block needs it, so that what is finished starts nothing; leaves when `until` closes."""

    @functools.cache
    def connected() -> tuple[Client, ClusterLayout]:
        found = until.enter_context(connect(config))
        show_dashboard(found[0].dashboard_link)
        return found

    return connected


@task(name="batch", task_run_name="{stage} {first}-{last} of {total}", cache_policy=NO_CACHE, persist_result=False)
def run_batch(*, stage: str, first: int, last: int, total: int, step: Callable[[int], None]) -> None:
    """Drive the cluster until blocks `first` to `last` of a stage have ended."""
    step(last - first + 1)


def run_stage(
    stage: str,
    *,
    cluster: ConnectCluster,
    make_tool: Callable[[ClusterLayout], Callable[[], Callable[..., Mapping[str, Any]]]],
    items: Iterable[tuple[str, Any]],
    total: int,
    ledger: Ledger,
    in_flight: int,
    retries: int,
    reporter: Reporter,
    on_ready: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    max_batches: int = MAX_BATCHES,
) -> StageResult:
    """Run what is pending of a stage and keep its ledger.

    Args:
        cluster: gives the client; called only if anything is pending.
        make_tool: gives what every worker calls to make its tool.
        items: (name, item) of all blocks of the stage; those that the ledger has as done or failed are left out.
        total: how many `items` there are.
        in_flight: blocks submitted at a time for each lane.
        on_ready: called when every worker has its tool, before the first block, with the arithmetic of all of them;
            returns the arithmetic that a worker which joins later must have as well.
        max_batches: Prefect tasks of the stage.
    """
    ready = time.perf_counter()
    done_before = ledger.count("done")
    settled = done_before + ledger.count("failed")
    pending = total - settled
    reporter.begin(stage, total, done=settled)
    if pending:
        client, layout = cluster()
        with _equipped(client, stage, make_tool(layout)) as equipment:
            arithmetic = None if on_ready is None else on_ready(describe_predictors(client, equipment))
            ready = time.perf_counter()
            live = LiveProgress(stage, total, done=settled)
            lent = lent_worker()
            runner = BoundedRunner(
                client=client,
                equipment=equipment,
                items=((name, item) for name, item in items if ledger.state(name) == "pending"),
                in_flight=in_flight * (layout.computing if lent is None else layout.lanes),
                per_worker=in_flight * layout.lanes,
                retries=retries,
                arithmetic=arithmetic,
                only=None if lent is None else lent.address,
            )
            step = partial(_drive, runner, ledger, reporter, live)
            batch = max(-(-pending // max_batches), runner.in_flight, MIN_BATCH)
            try:
                for first in range(0, pending, batch):
                    last = min(first + batch, pending)
                    run_batch(stage=stage, first=settled + first + 1, last=settled + last, total=total, step=step)
            finally:
                runner.cancel()
                live.flush()
    return StageResult(
        computed=ledger.count("done") - done_before,
        done=ledger.count("done"),
        failed={entry.block: str(entry.facts.get("error", "")) for entry in ledger.entries("failed")},
        seconds=time.perf_counter() - ready,
    )


@contextlib.contextmanager
def _equipped(client: Client, what: str, make_tool: Callable[[], Callable[..., Mapping[str, Any]]]) -> Iterator[str]:
    """Every worker has a tool as long as the block lasts; yields the name of the equipment.

    A scheduler that outlives the run would hand what is left there to every worker that joins, however the run ended;
    what a run that was killed has left is taken away now.
    """
    name = f"{what}-{time.time_ns():x}{_BROUGHT_BY}{client.id}"
    for other in _left_behind(client):
        with contextlib.suppress(OSError, ValueError):
            with_all_workers(partial(client.unregister_worker_plugin, other))
    try:
        with_all_workers(lambda: client.register_plugin(Equipment(name, make_tool), name=name))
        yield name
    finally:
        if client.status == "running":  # else what took the cluster away is on its way up already
            with contextlib.suppress(OSError, ValueError):
                with_all_workers(lambda: client.unregister_worker_plugin(name))


def _left_behind(client: Client) -> list[str]:
    """Names of the equipment of clients that are gone."""

    def known(dask_scheduler: Scheduler) -> tuple[list[str], list[str]]:  # travels by value: a scheduler has no torch
        return [str(name) for name in dask_scheduler.worker_plugins], [str(one) for one in dask_scheduler.clients]

    plugins, clients = client.run_on_scheduler(known)
    return [name for name in plugins if _BROUGHT_BY in name and name.rpartition(_BROUGHT_BY)[2] not in clients]


def with_all_workers(call: Callable[[], T]) -> T:
    """Ask something of every worker, again if one went silent meanwhile: the next time the scheduler knows it is gone.

    Raises:
        OSError: a worker was lost each time.
    """
    for _ in range(_WORKERS_LOST):
        try:
            return call()
        except OSError:
            time.sleep(1.0)
    return call()


def _drive(runner: BoundedRunner, ledger: Ledger, reporter: Reporter, live: LiveProgress, count: int) -> None:
    for outcome in runner.advance(count):
        ledger.append([_entry(outcome)])
        if outcome.error is not None:
            reporter.warn(f"block {outcome.name} failed {outcome.attempts} times: {outcome.error}")
        reporter.advance()
        live.advance()


def _entry(outcome: Outcome) -> Entry:
    if outcome.result is None:
        return Entry(block=outcome.name, state="failed", facts={"error": outcome.error, "attempts": outcome.attempts})
    return Entry(block=outcome.name, state="done", facts={**outcome.result, "attempts": outcome.attempts})


def describe_predictors(client: Client, equipment: str) -> dict[str, Any]:
    """Arithmetic of the workers' tools: device, precision, torch version. Every worker must say the same.

    Raises:
        ClusterError: they differ, so the result would depend on which worker computed which block.
        UnlikeWorkerError: one could not make its tool.
    """
    described = with_all_workers(lambda: client.run(_describe_equipment, equipment))
    distinct = {tuple(sorted(facts.items())) for facts in described.values()}
    if len(distinct) > 1:
        lines = "\n".join(f"  {address}: {facts}" for address, facts in described.items())
        raise ClusterError(
            f"the workers of this cluster do not compute alike, so the result would not be one:\n{lines}"
        )
    return dict(distinct.pop())


def describe_arithmetic(client: Client, make_tool: Callable[[], Callable[..., Mapping[str, Any]]]) -> dict[str, Any]:
    """What :func:`describe_predictors` would find of a tool, before any stage begins with it."""
    with _equipped(client, "description", make_tool) as equipment:
        return describe_predictors(client, equipment)


def _describe_equipment(equipment: str, dask_worker: Worker) -> dict[str, Any]:
    plugin = dask_worker.plugins.get(equipment)
    if not isinstance(plugin, Equipment):
        raise OSError(f"worker {dask_worker.address} has just joined")  # and is asked again
    plugin.ready(dask_worker.address)
    return plugin.describe()

"""One stage of a job: its blocks through the cluster, in at most some hundred steps.

Dask is imported when a first block needs it: what is finished starts nothing.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flows.cluster.config import ClusterConfig
from flows.cluster.layout import ClusterLayout
from flows.run.context import raise_if_stopped
from flows.run.errors import FailedBlocksError
from flows.run.observer import current_observer, step
from storage.places.bucket import Location
from tiling.chaining import Chaining
from tiling.ledger import Entry, Ledger

if TYPE_CHECKING:
    from distributed import Client

    from tiling.execute import BoundedRunner, Outcome

MAX_BATCHES = 100
"""Steps of one stage: at a million blocks a page of all steps stays readable, and few calls reach Prefect's API."""

MIN_BATCH = 25
"""Fewest blocks of a step: a step costs Prefect some 20 ms, too much for fewer (benchmarks/orchestration.py)."""

MakeTool = Callable[[], Callable[..., Mapping[str, Any]]]
"""Called once on each worker: makes what is then called there for each block, and returns JSON facts about it."""

ConnectCluster = Callable[[], tuple["Client", ClusterLayout]]


@dataclass(kw_only=True)
class Tool:
    """What every worker makes for a stage.

    Attributes:
        make: gives what each worker calls, by how many lanes it has.
        until: workers keep the tool until this closes, whatever stages begin and end; None = until its stage ends.
    """

    make: Callable[[ClusterLayout], MakeTool]
    until: contextlib.ExitStack | None = None
    _equipment: str | None = field(default=None, init=False)

    @contextlib.contextmanager
    def brought(self, client: Client, layout: ClusterLayout, name: str) -> Iterator[str]:
        """Every worker has the tool as long as the block lasts; yields the name of the equipment."""
        from flows.cluster.equipment import equipped

        if self.until is None:
            with equipped(client, name, self.make(layout)) as equipment:
                yield equipment
            return
        if self._equipment is None:
            self._equipment = self.until.enter_context(equipped(client, name, self.make(layout)))
        yield self._equipment


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Blocks to be computed by one tool.

    Attributes:
        items: (name, item) of all blocks; those that the ledger has as done or failed are left out.
        total: how many `items` there are.
        record: makes what the ledger keeps of what a worker reports.
        chaining: how items follow each other on one worker, by how many lanes it has; None = they do not.
    """

    name: str
    tool: Tool
    items: Iterable[tuple[str, Any]]
    total: int
    ledger: Ledger
    record: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    chaining: Callable[[ClusterLayout], Chaining] | None = None


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard a stage tries.

    Attributes:
        in_flight: blocks submitted at a time, for each lane.
        retries: further attempts at a block that failed.
    """

    in_flight: int = 3
    retries: int = 2


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """How a stage ended.

    Attributes:
        computed: number of blocks finished now.
        done: number of blocks finished now or before.
        failed: errors of the quarantined blocks, by name.
        seconds: time since every worker had its tool; starting the cluster and loading the model do not count.
    """

    computed: int
    done: int
    failed: Mapping[str, str]
    seconds: float

    def require_all(self, directory: Location, *, again: str = "with --retry-failed") -> None:
        """Raise FailedBlocksError if any block is in quarantine; `again`: how the command then takes it up."""
        if self.failed:
            total = self.done + len(self.failed)
            raise FailedBlocksError(self.failed, total=total, directory=directory, again=again)

    def summary(self, *, pixels: int, share: float | None = None) -> str:
        """The line of the stage.

        Args:
            pixels: number of pixels in all blocks of the stage.
            share: part of `pixels` that was computed now; None = that of the blocks.
        """
        if not self.computed:
            return f"{self.done} blocks, all done before"
        total = self.done + len(self.failed)
        share = self.computed / total if share is None else share
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{self.computed} of {total} blocks now{failed}, {pixels * share / self.seconds / 1e6:.2f} Mpx/s"


def when_needed(config: ClusterConfig, until: contextlib.ExitStack, *, soon: bool = False) -> ConnectCluster:
    """Connects when a first block needs it; leaves when `until` closes.

    Args:
        soon: it is certain that a block will: connect now, in a thread, while the caller goes on.
    """
    opened = contextlib.ExitStack()

    def connected() -> tuple[Client, ClusterLayout]:
        from flows.cluster.connect import connect

        return opened.enter_context(connect(config))

    if not soon:
        until.callback(opened.close)
        return functools.cache(connected)
    thread = ThreadPoolExecutor(1, thread_name_prefix="connect")
    connecting = thread.submit(copy_context().run, connected)

    def leave() -> None:
        thread.shutdown(wait=True)
        opened.close()

    until.callback(leave)
    return connecting.result


def run_stage(
    stage: Stage,
    *,
    cluster: ConnectCluster,
    effort: Effort,
    on_ready: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    max_batches: int = MAX_BATCHES,
) -> StageResult:
    """Run what is pending of a stage and keep its ledger.

    Args:
        cluster: gives the client; called only if anything is pending.
        on_ready: called when every worker has its tool, before the first block, with the arithmetic of all of them;
            returns the arithmetic that a worker which joins later must have as well.
        max_batches: steps of the stage.
    """
    ledger, began = stage.ledger, time.perf_counter()
    done_before = ledger.count("done")
    settled = done_before + ledger.count("failed")
    pending = stage.total - settled
    current_observer().begin(stage.name, stage.total, done=settled, live=stage.name if pending else "")
    if pending:
        began = _compute(stage, cluster(), effort, on_ready, settled=settled, max_batches=max_batches)
    return StageResult(
        computed=ledger.count("done") - done_before,
        done=ledger.count("done"),
        failed={entry.block: str(entry.facts.get("error", "")) for entry in ledger.entries("failed")},
        seconds=time.perf_counter() - began,
    )


def _compute(
    stage: Stage,
    cluster: tuple[Client, ClusterLayout],
    effort: Effort,
    on_ready: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None,
    *,
    settled: int,
    max_batches: int,
) -> float:
    """Compute all pending blocks; returns when every worker had its tool, by the clock of ``time.perf_counter``."""
    from flows.cluster.equipment import describe_predictors
    from flows.cluster.lending import lent_worker
    from tiling.execute import BoundedRunner

    client, layout = cluster
    with stage.tool.brought(client, layout, stage.name) as equipment:
        arithmetic = None if on_ready is None else on_ready(describe_predictors(client, equipment))
        ready = time.perf_counter()
        lent = lent_worker()
        runner = BoundedRunner(
            client=client,
            equipment=equipment,
            items=((name, item) for name, item in stage.items if stage.ledger.state(name) == "pending"),
            in_flight=effort.in_flight * (layout.computing if lent is None else layout.lanes),
            per_worker=effort.in_flight * layout.lanes,
            retries=effort.retries,
            arithmetic=arithmetic,
            only=None if lent is None else lent.address,
            chaining=None if stage.chaining is None else stage.chaining(layout),
        )
        pending = stage.total - settled
        batch = max(-(-pending // max_batches), runner.in_flight, MIN_BATCH)
        try:
            for first in range(0, pending, batch):
                last = min(first + batch, pending)
                _drive(runner, stage, first=settled + first + 1, last=settled + last)
        finally:
            runner.cancel()
            current_observer().pause()
    return ready


@step("batch", "{stage.name} {first}-{last} of {stage.total}")
def _drive(runner: BoundedRunner, stage: Stage, *, first: int, last: int) -> None:
    """Drive the cluster until blocks `first` to `last` of a stage have ended."""
    observer = current_observer()
    for outcome in runner.advance(last - first + 1):
        raise_if_stopped()
        stage.ledger.append([_entry(outcome, stage)])
        if outcome.error is not None:
            observer.warn(f"block {outcome.name} failed {outcome.attempts} times: {outcome.error}")
        observer.advance()


def _entry(outcome: Outcome, stage: Stage) -> Entry:
    if outcome.result is None:
        return Entry(block=outcome.name, state="failed", facts={"error": outcome.error, "attempts": outcome.attempts})
    return Entry(block=outcome.name, state="done", facts={**stage.record(outcome.result), "attempts": outcome.attempts})

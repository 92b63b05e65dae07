"""Ingest and infer: a stage's blocks through the cluster, in at most some hundred steps."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distributed import Client

from flows.cluster.config import ClusterConfig
from flows.cluster.connect import connect
from flows.cluster.equipment import _equipped, describe_predictors
from flows.cluster.layout import ClusterLayout
from flows.cluster.lending import lent_worker
from flows.run.observer import current_observer, step
from tiling.execute import BoundedRunner, Outcome
from tiling.ledger import Entry, Ledger

# A page of all steps stays readable, and an API that hears of each quiet, at a million blocks.
MAX_BATCHES = 100

MIN_BATCH = 25
"""Blocks: a step costs Prefect some 20 ms, which fewer blocks would feel (benchmarks/orchestration.py)."""


ConnectCluster = Callable[[], tuple[Client, ClusterLayout]]


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
        return until.enter_context(connect(config))

    return connected


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
        max_batches: steps of the stage.
    """
    ready = time.perf_counter()
    done_before = ledger.count("done")
    settled = done_before + ledger.count("failed")
    pending = total - settled
    observer = current_observer()
    observer.begin(stage, total, done=settled, live=stage if pending else "")
    if pending:
        client, layout = cluster()
        with _equipped(client, stage, make_tool(layout)) as equipment:
            arithmetic = None if on_ready is None else on_ready(describe_predictors(client, equipment))
            ready = time.perf_counter()
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
            batch = max(-(-pending // max_batches), runner.in_flight, MIN_BATCH)
            try:
                for first in range(0, pending, batch):
                    last = min(first + batch, pending)
                    drive(runner, ledger, stage=stage, first=settled + first + 1, last=settled + last, total=total)
            finally:
                runner.cancel()
                observer.pause()
    return StageResult(
        computed=ledger.count("done") - done_before,
        done=ledger.count("done"),
        failed={entry.block: str(entry.facts.get("error", "")) for entry in ledger.entries("failed")},
        seconds=time.perf_counter() - ready,
    )


@step("batch", "{stage} {first}-{last} of {total}")
def drive(runner: BoundedRunner, ledger: Ledger, *, stage: str, first: int, last: int, total: int) -> None:
    """Drive the cluster until blocks `first` to `last` of a stage have ended."""
    observer = current_observer()
    for outcome in runner.advance(last - first + 1):
        ledger.append([_entry(outcome)])
        if outcome.error is not None:
            observer.warn(f"block {outcome.name} failed {outcome.attempts} times: {outcome.error}")
        observer.advance()


def _entry(outcome: Outcome) -> Entry:
    if outcome.result is None:
        return Entry(block=outcome.name, state="failed", facts={"error": outcome.error, "attempts": outcome.attempts})
    return Entry(block=outcome.name, state="done", facts={**outcome.result, "attempts": outcome.attempts})


def summary_of_stage(result: StageResult, *, pixels: int, share: float | None = None) -> str:
    """The line of a stage.

    Args:
        pixels: of all its blocks, or, with `share` = 1, of those that were computed now.
    """
    if not result.computed:
        return f"{result.done} blocks, all done before"
    total = result.done + len(result.failed)
    share = result.computed / total if share is None else share
    failed = f", {len(result.failed)} failed" if result.failed else ""
    return f"{result.computed} of {total} blocks now{failed}, {pixels * share / result.seconds / 1e6:.2f} Mpx/s"

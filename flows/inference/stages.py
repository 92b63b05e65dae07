"""Ingest and infer of any series of dates, and what is set back or quarantined between them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from flows.cluster.layout import ClusterLayout
from flows.cluster.stage import ConnectCluster, MakeTool, Stage, StageResult, Tool, run_stage
from flows.inference.planned import PlannedSeries, read_name
from flows.inference.tools import IngestTool, make_series_tool
from storage.errors import ReplacedError
from storage.imagery.identity.digests import require_digest
from storage.imagery.mosaics import Mosaic
from storage.imagery.rasters import GridReader
from tiling.carrying import chain_of, place_in_chain
from tiling.chaining import Chaining
from tiling.chosen import ChosenCells
from tiling.grid import BlockGrid
from tiling.ledger import Entry, Ledger
from tiling.protocols import DatesStore, PairSink, Predictor
from tiling.worker import SeriesTask


class SeriesStages:
    """The two stages of one run; their tools are brought to the workers once, whatever the number of cells."""

    def __init__(
        self,
        job: PlannedSeries,
        *,
        images: DatesStore,
        probabilities: PairSink,
        readers: Mapping[str, GridReader],
        cluster: ConnectCluster,
        until: ExitStack,
    ) -> None:
        """`readers`: by the name of the date; `until`: when it closes, the workers give the tools back."""
        self._job, self._images, self._probabilities = job, images, probabilities
        self._cluster, self._until = cluster, until
        ingest_tool = partial(IngestTool, images=images, readers=readers, blocks=job.blocks)
        self._ingest = Tool(make=lambda layout: ingest_tool, until=until)

    def ingest(self, items: Iterable[tuple[str, tuple[str, int]]], *, total: int, ledger: Ledger) -> StageResult:
        """Read blocks of dates; `items`: name in the ledger, and (date, block index)."""
        stage = Stage(name="ingest", tool=self._ingest, items=items, total=total, ledger=ledger)
        return run_stage(stage, cluster=self._cluster, effort=self._job.effort)

    def predict_with(self, make_predictor: Callable[[], Predictor], chosen: ChosenCells | None = None) -> None:
        """`make_predictor`: called once on each worker; `chosen`: what is computed, None = everything."""

        def make(layout: ClusterLayout) -> MakeTool:
            return partial(
                make_series_tool,
                make_predictor,
                self._images,
                self._probabilities,
                self._job.blocks,
                self._job.lattice,
                layout.lanes,
                chosen,
                self._job.effort.in_flight * layout.lanes,
            )

        self._infer = Tool(make=make, until=self._until)

    def arithmetic(self) -> Mapping[str, Any]:
        """The arithmetic of the workers, before any block is computed."""
        from flows.cluster.equipment import describe_predictors

        client, layout = self._cluster()
        with self._infer.brought(client, layout, "infer") as equipment:
            return describe_predictors(client, equipment)

    def infer(
        self,
        tasks: Iterable[tuple[str, SeriesTask]],
        *,
        total: int,
        ledger: Ledger,
        on_ready: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        record: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> StageResult:
        """Compute pairs of blocks.

        Args:
            tasks: those of one chain (tiling.carrying) follow each other.
            on_ready, record: as in `flows.cluster.stage`.
        """
        stage = Stage(
            name="infer",
            tool=self._infer,
            items=tasks,
            total=total,
            ledger=ledger,
            record=record,
            chaining=lambda layout: Chaining(
                group=partial(_chain, blocks=self._job.blocks), link=_linked, busy=layout.lanes
            ),
        )
        return run_stage(stage, cluster=self._cluster, effort=self._job.effort, on_ready=on_ready)


def by_chains(tasks: Mapping[str, SeriesTask], blocks: BlockGrid) -> list[tuple[str, SeriesTask]]:
    """Tasks with their names, those of one chain after each other in its order."""

    def order(named: tuple[str, SeriesTask]) -> tuple[Any, ...]:
        task = named[1]
        return chain_of(task.block, blocks), task.dates, task.pairs, place_in_chain(task.block, blocks)

    return sorted(tasks.items(), key=order)


def _chain(task: SeriesTask, *, blocks: BlockGrid) -> Hashable:
    return chain_of(task.block, blocks), task.dates, task.pairs


def _linked(task: SeriesTask, chain: str, following: Sequence[SeriesTask]) -> SeriesTask:
    return replace(task, chain=chain, following=tuple(other.block for other in following))


def quarantine_what_was_replaced(
    ledger: Ledger, mosaic: Mosaic, names: Iterable[str], digests: Mapping[str, str]
) -> dict[str, str]:
    """Let blocks fail that were read from a server that names no version, where its content is another one now.

    Args:
        names: of the blocks of the mosaic that were read.
        digests: SHA-256 by path, as the run was begun with.

    Returns:
        Errors by name of the block.
    """
    try:
        require_digest(mosaic, digests)
    except ReplacedError as error:
        failed = {name: f"{type(error).__name__}: {error}" for name in names if ledger.state(name) == "done"}
        ledger.append(
            Entry(block=name, state="failed", facts={"error": words, "attempts": 1}) for name, words in failed.items()
        )
        return failed
    return {}


def quarantine_what_lacks_pixels(
    job: PlannedSeries, tasks: Iterable[tuple[str, SeriesTask]], *, ingested: Ledger, inferred: Ledger
) -> None:
    """Let tasks fail whose halo reaches into pixels that could not be read: a guess would be worse than no result."""
    errors = {entry.block: entry.facts.get("error", "") for entry in ingested.entries("failed")}
    if not errors:
        return
    entries = []
    for name, task in tasks:
        read = next((read for date, block in job.reads(task) if (read := read_name(date, block.name)) in errors), "")
        if read and inferred.state(name) == "pending":
            error = f"needs {read}, which could not be read: {errors[read]}"
            entries.append(Entry(block=name, state="failed", facts={"error": error, "attempts": 0}))
    inferred.append(entries)

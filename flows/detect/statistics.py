"""The stage between ingest and infer of a method without training: statistics of the whole pair, pass by pass.

Every pass counts each sheet once on the workers. The driver adds the tallies in the order of the sheets, whoever
counted them and whenever, and keeps the state after each pass in ``statistics.json``; a killed run goes on with the
pass where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from dasnet.baselines.detector import Detector
from dasnet.baselines.predictor import arithmetic
from dasnet.baselines.statistics import Names, Tally, total
from dasnet.baselines.untrained import State, UntrainedMethod
from flows.cluster.stage import ConnectCluster, Stage, Tool, run_stage
from flows.detect.directory import STATISTICS
from flows.detect.job import Job
from flows.detect.statistics_progress import Progress, pass_name, read_progress, sheets_of, write_progress
from flows.detect.tools import PairSource, StoredPair, make_statistics_tool
from flows.inference.untrained_model import UntrainedModel
from flows.run.directory import RunDirectory
from flows.run.observer import current_observer
from storage.places.bucket import Location
from storage.stores.run_store import RunStore
from tiling.grid import BlockGrid

_BATCHES = 10
"""Steps of one pass: a method may make fifty passes, and each step is a task of Prefect."""


@dataclass(frozen=True, kw_only=True)
class Passes:
    """The passes of a method over one pair.

    Attributes:
        names: of mosaics and bands, for messages.
        source: where workers read the pair.
        identity: what the numbers depend on beside the pixels, for a reader of the file.
        file: of the run's directory, in which the state is kept after each pass.
        prefix: of the passes' names, and of the arithmetic's in ``run.json``; the workers' own is that of the run where
            it is the usual one.
    """

    method: UntrainedMethod
    names: Names
    source: PairSource
    sheets: BlockGrid
    identity: Mapping[str, Any]
    file: str = STATISTICS
    prefix: str = "statistics"

    @property
    def execution(self) -> str:
        """Name in ``run.json`` of the workers' arithmetic."""
        return "execution" if self.prefix == "statistics" else "first_pass_execution"

    @property
    def driver_execution(self) -> str:
        """Name there of this process's arithmetic."""
        return "statistics_execution" if self.prefix == "statistics" else "first_pass_statistics_execution"


def make_statistics(
    job: Job, model: UntrainedModel, directory: RunDirectory[Location], cluster: ConnectCluster
) -> Detector:
    """Make the passes that are still to be made over the run's own pair; raises as :func:`make_passes`."""
    passes = Passes(
        method=model.method,
        names=model.names,
        source=StoredPair(store=RunStore(directory.store)),
        sheets=sheets_of(height=job.grid.height, width=job.grid.width),
        identity=model.identity,
    )
    return make_passes(job, passes, directory, cluster)


def make_passes(job: Job, passes: Passes, directory: RunDirectory[Location], cluster: ConnectCluster) -> Detector:
    """Make the passes that are still to be made.

    Raises:
        DegenerateStatisticsError: the statistics say nothing; the message names bands and mosaics.
        FailedBlocksError: sheets that could not be counted.
    """
    state, method, sheets = read_progress(directory, passes.file).state, passes.method, passes.sheets
    if not state.finished:
        # tallies are added up, and matrices taken apart, here: this machine's arithmetic decides bits as well
        directory.require_execution(arithmetic(), of=passes.driver_execution)
    while not state.finished:
        name = pass_name(state.passes + 1, passes.prefix)
        ledger = directory.ledger(name)
        job.take_up_failed(ledger)
        counted = run_stage(
            Stage(
                name=name,
                tool=_tool(passes, state),
                items=((sheet.name, sheet.index) for sheet in sheets),
                total=len(sheets),
                ledger=ledger,
            ),
            cluster=cluster,
            effort=job.effort,
            on_ready=partial(directory.require_execution, of=passes.execution),
            max_batches=_BATCHES,
        )
        counted.require_all(directory.path)
        with threadpool_limits(limits=1, user_api="blas"):
            tally = total(Tally.unpack(ledger.entry(sheet.name).facts["tally"]) for sheet in sheets)
            state = method.advance(state, tally, passes.names)
        threshold = method.detector(state).describe() if state.finished else ""
        write_progress(directory, Progress(state=state, threshold=threshold), passes.identity, passes.file)
        ledger.remove()
        directory.add_seconds(passes.prefix, counted.seconds)
        current_observer().end(state.notes[-1])
    return method.detector(state)


def _tool(passes: Passes, state: State) -> Tool:
    return Tool(make=lambda layout: partial(make_statistics_tool, passes.source, passes.sheets, passes.method, state))

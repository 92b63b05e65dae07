"""The stage between ingest and infer of a method without training: statistics of the whole pair, pass by pass.

Every pass counts each sheet once on the workers. The driver adds the tallies in the order of the sheets, whoever
counted them and whenever, and keeps the state after each pass in ``statistics.json``; a killed run goes on with the
pass where it was.
"""

from __future__ import annotations

from functools import partial

from threadpoolctl import threadpool_limits

from dasnet.baselines.detector import Detector
from dasnet.baselines.predictor import arithmetic
from dasnet.baselines.statistics import Tally, total
from dasnet.baselines.untrained import State, UntrainedMethod
from flows.cluster.stage import ConnectCluster, Stage, Tool, run_stage
from flows.detect.job import Job
from flows.detect.statistics_progress import Progress, pass_name, read_progress, sheets_of, write_progress
from flows.detect.tools import make_statistics_tool
from flows.inference.untrained_model import UntrainedModel
from flows.run.directory import RunDirectory
from flows.run.observer import current_observer
from storage.places.bucket import Location
from storage.stores.run_store import RunStore
from tiling.grid import BlockGrid

_BATCHES = 10
"""Steps of one pass: a method may make fifty passes, and each step is a task of Prefect."""


def make_statistics(
    job: Job, model: UntrainedModel, directory: RunDirectory[Location], cluster: ConnectCluster
) -> Detector:
    """Make the passes that are still to be made.

    Raises:
        DegenerateStatisticsError: the statistics say nothing; the message names bands and mosaics.
        FailedBlocksError: sheets that could not be counted.
    """
    state, method = read_progress(directory).state, model.method
    sheets, store = sheets_of(height=job.grid.height, width=job.grid.width), RunStore(directory.store)
    if not state.finished:
        # tallies are added up, and matrices taken apart, here: this machine's arithmetic decides bits as well
        directory.require_execution(arithmetic(), of="statistics_execution")
    while not state.finished:
        name = pass_name(state.passes + 1)
        ledger = directory.ledger(name)
        job.take_up_failed(ledger)
        counted = run_stage(
            Stage(
                name=name,
                tool=_tool(store, sheets, method, state),
                items=((sheet.name, sheet.index) for sheet in sheets),
                total=len(sheets),
                ledger=ledger,
            ),
            cluster=cluster,
            effort=job.effort,
            on_ready=directory.require_execution,
            max_batches=_BATCHES,
        )
        counted.require_all(directory.path)
        with threadpool_limits(limits=1, user_api="blas"):
            tally = total(Tally.unpack(ledger.entry(sheet.name).facts["tally"]) for sheet in sheets)
            state = method.advance(state, tally, model.names)
        threshold = method.detector(state).describe() if state.finished else ""
        write_progress(directory, Progress(state=state, threshold=threshold), model.identity)
        ledger.remove()
        directory.add_seconds("statistics", counted.seconds)
        current_observer().end(state.notes[-1])
    return method.detector(state)


def _tool(store: RunStore[Location], sheets: BlockGrid, method: UntrainedMethod, state: State) -> Tool:
    return Tool(make=lambda layout: partial(make_statistics_tool, store, sheets, method, state))

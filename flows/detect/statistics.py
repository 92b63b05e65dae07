"""The stage between ingest and infer of a method without training: statistics of the whole pair, pass by pass.

Every pass counts each sheet once on the workers. The driver adds the tallies in the order of the sheets, whoever
counted them and whenever, and keeps what the pass found in ``statistics.json``; a killed run takes up the pass where
it was.
"""

from __future__ import annotations

from functools import partial

from threadpoolctl import threadpool_limits

from dasnet.baselines.detector import Detector
from dasnet.baselines.predictor import arithmetic
from dasnet.baselines.statistics import Tally, total
from dasnet.baselines.untrained import State, UntrainedMethod
from flows.cluster.stage import ConnectCluster, Effort, Stage, StageResult, Tool, run_stage
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
"""Prefect tasks of one pass: a method may make fifty of them."""


def make_statistics(
    job: Job,
    model: UntrainedModel,
    directory: RunDirectory[Location],
    cluster: ConnectCluster,
) -> Detector:
    """Make the passes that are still to be made.

    Raises:
        DegenerateStatisticsError: the statistics say nothing; the message names bands and mosaics.
        FailedBlocksError: sheets that could not be counted.
    """
    state, method = read_progress(directory).state, model.method
    sheets = sheets_of(height=job.grid.height, width=job.grid.width)
    if not state.finished:
        # tallies are added up, and matrices taken apart, here; what follows from them decides bits as well
        directory.require_execution(arithmetic(), of="statistics_execution")
    while not state.finished:
        name = pass_name(state.passes + 1)
        counted = _count(job, method, state, sheets, name, directory, cluster)
        ledger = directory.ledger(name)
        with threadpool_limits(limits=1, user_api="blas"):
            tally = total(Tally.unpack(ledger.entry(sheet.name).facts["tally"]) for sheet in sheets)
            state = method.advance(state, tally, model.names)
        threshold = method.detector(state).describe() if state.finished else ""
        write_progress(directory, Progress(state=state, threshold=threshold), model.identity)
        ledger.remove()
        directory.add_seconds("statistics", counted.seconds)
        current_observer().end(state.notes[-1])
    return method.detector(state)


def _count(
    job: Job,
    method: UntrainedMethod,
    state: State,
    sheets: BlockGrid,
    name: str,
    directory: RunDirectory[Location],
    cluster: ConnectCluster,
) -> StageResult:
    ledger = directory.ledger(name)
    if job.request.retry_failed:
        ledger.forget_failed("--retry-failed")
    result = run_stage(
        Stage(
            name=name,
            tool=Tool(
                make=lambda layout: partial(make_statistics_tool, RunStore(directory.store), sheets, method, state)
            ),
            items=((sheet.name, sheet.index) for sheet in sheets),
            total=len(sheets),
            ledger=ledger,
        ),
        cluster=cluster,
        effort=Effort(in_flight=job.request.cluster.in_flight, retries=job.request.retries),
        on_ready=directory.require_execution,
        max_batches=_BATCHES,
    )
    result.require_all(directory.path)
    return result

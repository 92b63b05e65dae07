"""detect-changes: plan → ingest → infer → mosaic → products."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from dasnet.inference import DasnetPredictor
from flows import artifacts, make_products
from flows.cluster import ClusterLayout, connect
from flows.config import DetectRequest
from flows.console import Reporter, current_reporter
from flows.fanout import (
    StageResult,
    describe_predictors,
    make_inference_tool,
    make_ingest_tool,
    run_stage,
)
from flows.job import Job, resolve
from flows.make_products import Summary
from flows.run_directory import RunDirectory
from flows.versions import versions
from storage.errors import InputError
from storage.rasters import digest_mosaic
from storage.store import RunStore, create_store
from tiling.ledger import Ledger
from tiling.protocols import Predictor


@dataclass
class Cluster:
    """The cluster of a run, started when the first block needs it: a finished run needs none."""

    request: DetectRequest
    stack: ExitStack
    _connected: tuple[Client, ClusterLayout] | None = field(default=None)

    def __call__(self) -> tuple[Client, ClusterLayout]:
        if self._connected is None:
            client, layout = self.stack.enter_context(connect(self.request.cluster))
            artifacts.show_dashboard(client.dashboard_link)
            self._connected = client, layout
        return self._connected


@task(name="plan", cache_policy=NO_CACHE, persist_result=False)
def plan_run(request: DetectRequest) -> Job:
    """Open headers, find the grid, count the cost; refuse what cannot work."""
    job = resolve(request)
    table = ["| | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in job.describe())]
    artifacts.show_plan("\n".join(table))
    return job


@task(name="digest inputs", cache_policy=NO_CACHE, persist_result=False)
def adopt_directory(job: Job, directory: RunDirectory) -> str:
    """Digest the inputs and make the directory this run's; refuse one that holds another run."""
    digested = {mosaic.label: digest_mosaic(mosaic) for mosaic in job.mosaics}
    identity = job.identity({label: digest.sha256 for label, digest in digested.items()})
    files = {label: dict(digest.files) for label, digest in digested.items()}
    return directory.adopt(
        identity, files=files, request=job.request.model_dump(mode="json"), versions=versions()
    )


def ingest(job: Job, directory: RunDirectory, cluster: Cluster) -> StageResult:
    """Bring every block of every date into the run's store.

    Raises:
        InputError: no pixel of a date is valid.
    """
    if not directory.store.exists():
        create_store(
            directory.store,
            grid=job.grid,
            times=job.times,
            bands=[band.name for band in job.bundle.bands],
            dtype=job.bundle.dtype,
            block=job.blocks.size,
            attrs={"bundle": job.request.bundle, "dates_known": job.dates_known},
        )
    store, ledger = RunStore(directory.store), directory.ledger("ingest")
    _take_up_failed(job, ledger)
    result = run_stage(
        "ingest",
        cluster=cluster,
        make_tool=lambda layout: partial(make_ingest_tool, store, job.readers, job.blocks),
        items=(
            (_ingest_name(date, block.name), (date, block.index))
            for date in range(len(job.mosaics))
            for block in job.blocks
        ),
        total=len(job.mosaics) * len(job.blocks),
        ledger=ledger,
        in_flight=job.request.cluster.in_flight,
        retries=job.request.retries,
        reporter=current_reporter(),
    )
    if not result.failed:
        valid: Counter[str] = Counter()
        for entry in ledger.entries("done"):
            valid[entry.block.partition("/")[0]] += entry.facts["valid"]
        for date, mosaic in enumerate(job.mosaics):
            if not valid[f"t{date}"]:
                raise InputError(f"{mosaic.label} has no valid pixel on the grid of this run: all of it is nodata there")
    pixels = len(job.mosaics) * job.plan.pixels
    current_reporter().end(f"{result.done} blocks, {_rate(pixels, result, 'px')}")
    return result


def infer(
    job: Job, directory: RunDirectory, cluster: Cluster, make_predictor: Callable[[], Predictor]
) -> StageResult:
    """Compute the change probability of every block whose pixels are all there."""
    store, ledger = RunStore(directory.store), directory.ledger("infer")
    _take_up_failed(job, ledger)
    _quarantine_what_lacks_pixels(job, directory.ledger("ingest"), ledger)
    result = run_stage(
        "infer",
        cluster=cluster,
        make_tool=lambda layout: partial(
            make_inference_tool, make_predictor, store, job.blocks, job.lattice, layout.lanes
        ),
        items=((block.name, block.index) for block in job.blocks),
        total=len(job.blocks),
        ledger=ledger,
        in_flight=job.request.cluster.in_flight,
        retries=job.request.retries,
        reporter=current_reporter(),
        on_ready=lambda client: directory.refuse_changed_execution(describe_predictors(client)),
    )
    current_reporter().end(f"{result.done} blocks, {_rate(job.plan.pixels, result, 'px')}")
    return result


def _ingest_name(date: int, block: str) -> str:
    return f"t{date}/{block}"


def _rate(total: int, result: StageResult, unit: str) -> str:
    if not result.computed:
        return "nothing left to do"
    share = result.computed / max(result.done + len(result.failed), 1)
    return f"{result.computed} of them now, {total * share / result.seconds / 1e6:.2f} M{unit}/s"


def _take_up_failed(job: Job, ledger: Ledger) -> None:
    if job.request.retry_failed:
        ledger.forget([entry.block for entry in ledger.entries("failed")], reason="--retry-failed")


def _quarantine_what_lacks_pixels(job: Job, ingested: Ledger, ledger: Ledger) -> None:
    """Blocks whose halo reaches into pixels that could not be read cannot be computed: they are failed, not guessed."""
    missing = [(entry.block, job.blocks.named(entry.block.partition("/")[2])) for entry in ingested.entries("failed")]
    entries = [
        Entry(block=block.name, state="failed", facts={"error": f"needs {name}, which could not be read", "attempts": 0})
        for block in (job.blocks if missing else ())
        for name in [next((n for n, b in missing if b.box.intersects(job.lattice.read_box(block.box))), None)]
        if name is not None and ledger.state(block.name) == "pending"
    ]
    ledger.append(entries)


def run_detection(request: DetectRequest, make_predictor: Callable[[], Predictor] | None = None) -> Summary:
    """The stages of the flow `detect-changes`; call it inside a flow run.

    Args:
        make_predictor: makes the predictor on each worker; None = DASNet from the request's bundle.
    """
    reporter = current_reporter()
    job = plan_run(request)
    for warning in job.warnings:
        reporter.warn(warning)
    directory = RunDirectory(request.output)
    with directory.locked(), ExitStack() as stack:
        adopt_directory(job, directory)
        cluster = Cluster(request, stack)
        ingested = ingest(job, directory, cluster)
        inferred = infer(job, directory, cluster, make_predictor or predictor_factory(request))
        _show_blocks(directory, total=len(job.blocks))
        failed = {**ingested.failed, **inferred.failed}
        if failed:
            raise FailedBlocksError(
                failed, total=(1 + len(job.mosaics)) * len(job.blocks), directory=directory.path
            )
        stack.close()
        directory.record_seconds(ingest=ingested, infer=inferred)
        return make_products(job, directory)


def predictor_factory(request: DetectRequest) -> Callable[[], Predictor]:
    """What each worker calls to load the model of a request."""
    return partial(
        load_predictor,
        str(bundle_path(request.bundle)),
        device="cuda" if request.cluster.kind == "cuda" else None,
        precision=request.precision,
        batch=request.batch,
        compile=request.compile,
    )


def _show_blocks(directory: RunDirectory, *, total: int) -> None:
    ledger = directory.ledger("infer")
    failed = {entry.block: str(entry.facts["error"]) for entry in ledger.entries("failed")}
    skipped = sum(entry.facts["windows"] == 0 for entry in ledger.entries("done"))
    artifacts.show_blocks(
        done=ledger.count("done"),
        skipped=skipped,
        failed=failed,
        pending=total - ledger.count("done") - ledger.count("failed"),
        total=total,
    )


@flow(name="detect-changes", flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
def detect_changes(request: DetectRequest) -> Summary:
    """Two georeferenced mosaics in; one calibrated change-probability mosaic with its products out.

    Run it again with the same request after any interruption: finished blocks are not computed again.
    """
    return run_detection(request)

"""detect-changes: plan → ingest → (statistics, for a method without training) → infer → mosaic → products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from dasnet.baselines.predictor import UntrainedPredictor
from flows.cluster.stage import ConnectCluster, Effort, Stage, StageResult, Tool, run_stage, when_needed
from flows.detect.job import Job, resolve
from flows.detect.products import Summary, make_products
from flows.detect.request import DetectRequest
from flows.detect.statistics import make_statistics
from flows.detect.statistics_progress import pass_name, read_progress, sheets_of
from flows.inference.lost_images import set_back_lost, stored_images
from flows.inference.predictor import predictor_factory
from flows.inference.tools import IngestTool, make_inference_tool
from flows.inference.untrained_model import UntrainedModel
from flows.run.artifacts import blocks_table, plan_page
from flows.run.directory import RunDirectory
from flows.run.errors import FailedBlocksError
from flows.run.observer import current_observer, step
from flows.run.versions import versions
from storage.errors import InputError
from storage.imagery.digests import digest_mosaic
from storage.places.bucket import Location
from storage.stores.create import create_store
from storage.stores.run_store import RunStore, store_exists
from tiling.ledger import Entry, Ledger
from tiling.protocols import Predictor


@step("plan")
def plan_run(request: DetectRequest) -> Job:
    """Open headers, find the grid, count the cost; refuse what cannot work."""
    job = resolve(request)
    current_observer().show(plan_page(job.describe()))
    return job


@step("digest inputs")
def adopt_directory(job: Job, directory: RunDirectory[Location]) -> str:
    """Digest the inputs and make the directory this run's; refuse one that holds another run."""
    current_observer().begin("inputs", len(job.mosaics), unit="mosaics")
    digested = {mosaic.label: digest_mosaic(mosaic) for mosaic in job.mosaics}
    key = directory.adopt(
        job.identity({label: digest.sha256 for label, digest in digested.items()}),
        files={label: dict(digest.files) for label, digest in digested.items()},
        request=job.request.model_dump(mode="json"),
        versions=versions(),
    )
    current_observer().end(f"run {key[:12]}…")
    return key


def ingest(job: Job, directory: RunDirectory[Location], cluster: ConnectCluster) -> StageResult:
    """Bring every block of every date into the run's store.

    Raises:
        InputError: no pixel of a date is valid.
    """
    if not store_exists(directory.store):
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
        Stage(
            name="ingest",
            tool=Tool(make=lambda layout: partial(IngestTool, store=store, readers=job.readers, blocks=job.blocks)),
            items=(
                (f"t{date}/{block.name}", (date, block.index))
                for date in range(len(job.mosaics))
                for block in job.blocks
            ),
            total=len(job.mosaics) * len(job.blocks),
            ledger=ledger,
        ),
        cluster=cluster,
        effort=Effort(in_flight=job.request.cluster.in_flight, retries=job.request.retries),
    )
    directory.add_seconds("ingest", result.seconds)
    if not result.failed:
        _refuse_dates_without_pixels(job, ledger)
    current_observer().end(result.summary(pixels=len(job.mosaics) * job.plan.pixels))
    return result


def infer(
    job: Job, directory: RunDirectory[Location], cluster: ConnectCluster, make_predictor: Callable[[], Predictor]
) -> StageResult:
    """Compute the change probability of every block whose pixels are all there."""
    store, ledger = RunStore(directory.store), directory.ledger("infer")
    _take_up_failed(job, ledger)
    _quarantine_what_lacks_pixels(job, directory.ledger("ingest"), ledger)
    result = run_stage(
        Stage(
            name="infer",
            tool=Tool(
                make=lambda layout: partial(
                    make_inference_tool, make_predictor, store, job.blocks, job.lattice, layout.lanes
                )
            ),
            items=((block.name, block.index) for block in job.blocks),
            total=len(job.blocks),
            ledger=ledger,
        ),
        cluster=cluster,
        effort=Effort(in_flight=job.request.cluster.in_flight, retries=job.request.retries),
        on_ready=directory.require_execution,
    )
    directory.add_seconds("infer", result.seconds)
    current_observer().end(result.summary(pixels=job.plan.pixels))
    return result


def run_detection(request: DetectRequest, make_predictor: Callable[[], Predictor] | None = None) -> Summary:
    """The stages of the flow `detect-changes`; call it inside a flow run.

    Args:
        make_predictor: makes the predictor on each worker; None = from the request's bundle, or from the statistics of
            its method.
    """
    job = plan_run(request)
    for warning in job.warnings:
        current_observer().warn(warning)
    directory = RunDirectory(request.output)
    with directory.locked(on_wait=current_observer().warn), ExitStack() as until_products:
        adopt_directory(job, directory)
        cluster = when_needed(request.cluster, until_products)
        if request.retry_failed and store_exists(directory.store):
            _set_back_lost_images(job, directory)
        ingested = ingest(job, directory, cluster)
        if make_predictor is None and isinstance(job.bundle, UntrainedModel):
            if ingested.failed:
                # the statistics of what could be read are not those of the mosaic
                total = len(job.mosaics) * len(job.blocks)
                raise FailedBlocksError(ingested.failed, total=total, directory=directory.path)
            make_predictor = partial(UntrainedPredictor, make_statistics(job, job.bundle, directory, cluster))
        inferred = infer(job, directory, cluster, make_predictor or predictor_factory(job))
        until_products.close()
        _show_blocks(directory.ledger("infer"), total=len(job.blocks))
        failed = {**ingested.failed, **inferred.failed}
        if failed:
            total = (1 + len(job.mosaics)) * len(job.blocks)
            raise FailedBlocksError(failed, total=total, directory=directory.path)
        return make_products(job, directory)


def _take_up_failed(job: Job, ledger: Ledger) -> None:
    if job.request.retry_failed:
        ledger.forget_failed("--retry-failed")


def _set_back_lost_images(job: Job, directory: RunDirectory[Location]) -> None:
    """Of the blocks that failed after ingest: what they need may have been lost since, and is then read anew."""
    needed = {
        other.index
        for entry in directory.ledger("infer").entries("failed")
        for other in job.blocks.touching(job.lattice.read_box(job.blocks.named(entry.block).box))
    }
    if isinstance(job.bundle, UntrainedModel):
        sheets = sheets_of(height=job.grid.height, width=job.grid.width)
        counted = directory.ledger(pass_name(read_progress(directory).state.passes + 1))
        needed |= {
            other.index
            for entry in counted.entries("failed")
            for other in job.blocks.touching(sheets.named(entry.block).box)
        }
    set_back_lost(
        directory.ledger("ingest"), stored_images(RunStore(directory.store), (job.blocks[index] for index in needed))
    )


def _refuse_dates_without_pixels(job: Job, ledger: Ledger) -> None:
    valid: Counter[str] = Counter()
    for entry in ledger.entries("done"):
        valid[entry.block.partition("/")[0]] += entry.facts["valid"]
    for date, mosaic in enumerate(job.mosaics):
        if not valid[f"t{date}"]:
            raise InputError(f"{mosaic.label} has no valid pixel on the grid of this run: all of it is nodata there")


def _quarantine_what_lacks_pixels(job: Job, ingested: Ledger, ledger: Ledger) -> None:
    """Blocks whose halo reaches into pixels that could not be read cannot be computed: they fail, nobody guesses."""
    missing = {entry.block: job.blocks.named(entry.block.partition("/")[2]) for entry in ingested.entries("failed")}
    if not missing:
        return
    entries = []
    for block in job.blocks:
        needed = job.lattice.read_box(block.box)
        lacking = [name for name, other in missing.items() if other.box.intersects(needed)]
        if lacking and ledger.state(block.name) == "pending":
            facts = {"error": f"needs {lacking[0]}, which could not be read", "attempts": 0}
            entries.append(Entry(block=block.name, state="failed", facts=facts))
    ledger.append(entries)


def _show_blocks(ledger: Ledger, *, total: int) -> None:
    failed = {entry.block: str(entry.facts["error"]) for entry in ledger.entries("failed")}
    current_observer().show(
        blocks_table(
            done=ledger.count("done"),
            skipped=sum(entry.facts["windows"] == 0 for entry in ledger.entries("done")),
            failed=failed,
            pending=total - ledger.count("done") - len(failed),
            total=total,
        )
    )

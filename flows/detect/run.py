"""detect-changes: plan → ingest → (statistics, for a method without training) → infer → plates → mosaic → products."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from odc.geo.geobox import GeoBox

from flows.cluster.stage import ConnectCluster, StageResult, when_needed
from flows.detect.directory import FIRST_PASS_STAGE, FIRST_PASS_STATISTICS
from flows.detect.first_pass_plan import FirstPass
from flows.detect.job import Job, resolve
from flows.detect.products import Summary, make_products, pair_products
from flows.detect.request import DetectRequest
from flows.detect.statistics_progress import pass_name, read_progress, sheets_of
from flows.inference.lost_images import set_back_lost, stored_images
from flows.inference.pair_products import import_makers
from flows.inference.planned import read_name
from flows.inference.predictor import predictor_factory
from flows.inference.stages import SeriesStages, quarantine_what_lacks_pixels, quarantine_what_was_replaced
from flows.inference.untrained_model import UntrainedModel
from flows.run.artifacts import blocks_table, plan_page
from flows.run.context import planned
from flows.run.directory import RunDirectory
from flows.run.errors import FailedBlocksError
from flows.run.observer import current_observer, step
from flows.run.versions import versions
from storage.errors import InputError
from storage.imagery.identity.digests import DigestCache, counts_otherwise, former_digest
from storage.imagery.mosaics import Mosaic
from storage.places.bucket import Location
from storage.stores.create import create_store
from storage.stores.run_store import RunStore, store_exists
from tiling.chosen import ChosenCells
from tiling.conventions import PASSED_OVER
from tiling.ledger import Ledger
from tiling.protocols import Predictor


@step("plan")
def plan_run(request: DetectRequest) -> Job:
    """Open headers, find the grid, count the cost; refuse what cannot work."""
    job = planned(request, resolve)
    current_observer().show(plan_page(job.describe()))
    return job


@step("digest inputs")
def planned_grid(request: DetectRequest) -> GeoBox:
    """The grid that a run would have; raises what planning it raises."""
    return resolve(request).grid


def adopt_directory(job: Job, directory: RunDirectory[Location]) -> str:
    """Digest the inputs and make the directory this run's; refuse one that holds another run."""
    current_observer().begin("inputs", len(job.inputs), unit="mosaics")
    cache = DigestCache(directory.digests)
    digests = [cache.digest(mosaic) for mosaic in job.inputs]
    identity = job.identity([digest.sha256 for digest in digests])
    if directory.describe() is not None and not directory.is_of(identity):
        former = job.identity(
            [
                former_digest(mosaic, digest=cache.digest_files) if counts_otherwise(mosaic) else digest.sha256
                for mosaic, digest in zip(job.inputs, digests, strict=True)
            ]
        )
        identity = former if directory.is_of(former) else identity
    key = directory.adopt(
        identity,
        files=dict(zip(input_names(job.inputs), (dict(digest.files) for digest in digests), strict=True)),
        request=job.request.model_dump(mode="json"),
        versions=versions(),
    )
    cache.save()
    job.headers.save()
    current_observer().end(f"run {key[:12]}…")
    return key


def input_names(mosaics: Sequence[Mosaic]) -> list[str]:
    """What people call the inputs, each once."""
    labels = [mosaic.label for mosaic in mosaics]
    return [label if labels.index(label) == number else f"{label} again" for number, label in enumerate(labels)]


def run_detection(request: DetectRequest, make_predictor: Callable[[], Predictor] | None = None) -> Summary:
    """Two georeferenced mosaics in; one calibrated change-probability mosaic with its products out.

    Run it again with the same request after any interruption: finished blocks are not computed again.

    Args:
        make_predictor: makes the predictor on each worker; None = from the request's bundle, or from the statistics of
            its method.

    Raises:
        FailedBlocksError: blocks are in quarantine; all others are finished.
    """
    job = plan_run(request)
    observer = current_observer()
    for warning in job.warnings:
        observer.warn(warning)
    directory = RunDirectory(request.output)
    with directory.locked(on_wait=observer.warn), ExitStack() as until_products:
        adopt_directory(job, directory)
        pending = directory.ledger("infer").count("done") + directory.ledger("infer").count("failed") < len(job.blocks)
        cluster = when_needed(job.cluster, until_products, soon=pending)
        if pending:
            threading.Thread(target=import_makers, name="imports", daemon=True).start()
        stages = _stages(job, directory, cluster, until_products)
        ingested = _ingest(job, directory, stages)
        if make_predictor is None and job.method is not None:
            # the statistics of what could be read are not those of the mosaic
            ingested.require_all(directory.path)
            make_predictor = _untrained_predictor(job, job.method, directory, cluster)
        chosen = None
        if job.first_pass is not None:
            # what could not be read cannot be judged
            ingested.require_all(directory.path)
            chosen = _chosen_cells(job, job.first_pass, directory, cluster)
        stages.predict_with(make_predictor or predictor_factory(job), chosen)
        inferred = _infer(job, directory, stages)
        observer.show(blocks_table(directory.ledger("infer"), total=len(job.blocks)))
        failed = {**ingested.failed, **inferred.failed}
        if failed:
            total = (1 + len(job.dates)) * len(job.blocks)
            raise FailedBlocksError(failed, total=total, directory=directory.path)
        products = pair_products(job, directory, cluster)
        if products.stand():
            return make_products(job, directory, products)
        products.make_parts()
        with _in_the_background(until_products.close):
            return make_products(job, directory, products)


@contextmanager
def _in_the_background(close: Callable[[], None]) -> Iterator[None]:
    """Leave the cluster while the products are made."""
    with ThreadPoolExecutor(1, thread_name_prefix="close") as thread:
        closing = thread.submit(close)
        yield
        closing.result()


def _untrained_predictor(
    job: Job, model: UntrainedModel, directory: RunDirectory[Location], cluster: ConnectCluster
) -> Callable[[], Predictor]:
    from dasnet.baselines.predictor import UntrainedPredictor
    from flows.detect.statistics import make_statistics

    return partial(UntrainedPredictor, make_statistics(job, model, directory, cluster))


def _chosen_cells(job: Job, plan: FirstPass, directory: RunDirectory[Location], cluster: ConnectCluster) -> ChosenCells:
    from flows.detect.first_pass import choose_cells

    return choose_cells(job, plan, directory, cluster).cells


def _stages(job: Job, directory: RunDirectory[Location], cluster: ConnectCluster, until: ExitStack) -> SeriesStages:
    if not store_exists(directory.store):
        create_store(
            directory.store,
            grid=job.grid,
            times=job.times,
            bands=job.bundle.band_names,
            dtype=job.bundle.dtype,
            block=job.blocks.size,
            attrs={
                "bundle": job.request.bundle,
                "dates_known": job.dates_known,
                **({"passed_over_level": PASSED_OVER} if job.first_pass else {}),
            },
        )
    elif job.request.retry_failed:
        _set_back_lost_images(job, directory)
    store = RunStore(directory.store)
    readers = dict(zip(job.dates, job.readers, strict=True))
    return SeriesStages(job, images=store, probabilities=store, readers=readers, cluster=cluster, until=until)


def _ingest(job: Job, directory: RunDirectory[Location], stages: SeriesStages) -> StageResult:
    """Bring every block of every date into the run's store.

    Raises:
        InputError: no pixel of a date is valid.
    """
    ledger = directory.ledger("ingest")
    job.take_up_failed(ledger)
    items = ((read_name(date, block.name), (date, block.index)) for date in job.dates for block in job.blocks)
    result = stages.ingest(items, total=len(job.dates) * len(job.blocks), ledger=ledger)
    directory.add_seconds("ingest", result.seconds)
    if result.computed:
        digests = list((directory.describe() or {}).get("files", {}).values())
        for date, mosaic, files in zip(job.dates, job.mosaics, digests, strict=False):
            names = [read_name(date, block.name) for block in job.blocks]
            failed = quarantine_what_was_replaced(ledger, mosaic, names, files)
            result = replace(result, failed={**result.failed, **failed})
    if not result.failed:
        _refuse_dates_without_pixels(job, ledger)
    current_observer().end(result.summary(pixels=len(job.dates) * job.plan.pixels))
    return result


def _infer(job: Job, directory: RunDirectory[Location], stages: SeriesStages) -> StageResult:
    """Compute the change probability of every block whose pixels could all be read."""
    ledger = directory.ledger("infer")
    job.take_up_failed(ledger)
    quarantine_what_lacks_pixels(job, job.tasks(), ingested=directory.ledger("ingest"), inferred=ledger)
    result = stages.infer(
        job.tasks(),
        total=len(job.blocks),
        ledger=ledger,
        on_ready=directory.require_execution,
        record=_with_one_digest,
    )
    directory.add_seconds("infer", result.seconds)
    current_observer().end(result.summary(pixels=job.plan.pixels))
    return result


def _with_one_digest(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run's ledger keeps of a block: a run has one pair, so the digest stands alone."""
    (digest,) = facts["digests"].values()
    return {"digest": digest, **{name: value for name, value in facts.items() if name != "digests"}}


def _set_back_lost_images(job: Job, directory: RunDirectory[Location]) -> None:
    """Imagery that failed blocks need may have been lost since it was ingested: let it be read anew."""
    failed = directory.ledger("infer").entries("failed")
    indices = {block.index for entry in failed for block in job.blocks_read(job.blocks.named(entry.block).index)}
    if job.method is not None:
        sheets = sheets_of(height=job.grid.height, width=job.grid.width)
        counted = directory.ledger(pass_name(read_progress(directory).state.passes + 1))
        indices |= {
            block.index
            for entry in counted.entries("failed")
            for block in job.blocks.touching(sheets.named(entry.block).box)
        }
    if job.first_pass is not None and not job.first_pass.mosaics:
        looked_at = job.first_pass.sheets
        done = read_progress(directory, FIRST_PASS_STATISTICS).state.passes
        for stage in (FIRST_PASS_STAGE, pass_name(done + 1, FIRST_PASS_STAGE)):
            indices |= {
                block.index
                for entry in directory.ledger(stage).entries("failed")
                for block in job.blocks.touching(looked_at.named(entry.block).box)
            }
    images = stored_images(job, product(job.dates, sorted(indices)), RunStore(directory.store))
    set_back_lost(directory.ledger("ingest"), images)


def _refuse_dates_without_pixels(job: Job, ledger: Ledger) -> None:
    valid: Counter[str] = Counter()
    for entry in ledger.entries("done"):
        valid[entry.block.partition("/")[0]] += entry.facts["valid"]
    for date, mosaic in zip(job.dates, job.mosaics, strict=True):
        if not valid[date]:
            raise InputError(f"{mosaic.label} has no valid pixel on the grid of this run: all of it is nodata there")

"""reprocess-archive: every pair of dates of an archive, and only what is new since the last time.

The region is cut into cells; each is a run of its own: missing images are read, missing pairs inferred, products made.
A cell that fails does not stop the others. Then all cells together make the cube, the collection and the timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial

from flows.archive.cell_products import CellSummary, make_cell_products
from flows.archive.directory import ArchiveDirectory
from flows.archive.job import ArchiveJob, resolve_archive
from flows.archive.overview import ArchiveSummary, make_archive_products, write_archive_collection
from flows.archive.request import ReprocessRequest
from flows.archive.work import PAIRS, ArchiveWork, CellWork, cell_work, set_back_pairs, work_of
from flows.cluster.stage import ConnectCluster, when_needed
from flows.inference.lost_images import set_back_lost, stored_images
from flows.inference.planned import failed_by_replacement, read_name
from flows.inference.plate_stage import PlateMakers
from flows.inference.predictor import predictor_factory
from flows.inference.stages import (
    SeriesStages,
    by_chains,
    quarantine_what_lacks_pixels,
    quarantine_what_was_replaced,
)
from flows.run.artifacts import Table, plan_page
from flows.run.context import planned
from flows.run.errors import BrokenDatesError, FailedBlocksError, FailedCellsError
from flows.run.observer import Part, current_observer, step
from flows.run.versions import versions
from storage.errors import IntegrityError
from storage.geometry import grid_facts
from storage.imagery.identity.versions import REPLACED
from storage.stores.create import create_image_store, create_probability_store
from tiling.grid import Cell
from tiling.ledger import Entry, Ledger
from tiling.protocols import Predictor

CELL_FAILURES = (FailedBlocksError, IntegrityError)
"""Errors that end a cell and let the next one begin."""


@step("plan")
def plan_archive(request: ReprocessRequest) -> ArchiveJob:
    """Read the archive and the headers, find or recall the grid; refuse what cannot work; say what is to be done."""
    job = planned(request, resolve_archive)
    work = work_of(job, ArchiveDirectory(job))
    work.require_disk()
    current_observer().show(plan_page(work.describe()))
    return job


def adopt(job: ArchiveJob, directory: ArchiveDirectory) -> None:
    """Make the directory this archive's, and the version this bundle's; refuse another archive's."""
    directory.root.adopt(job.identity, grid=grid_facts(job.grid), versions=versions())
    directory.root.update(state="unfinished")
    job.cache.save()
    directory.version.path.mkdir(parents=True, exist_ok=True)
    directory.version.adopt(job.version_identity, versions=versions())


def _stages(job: ArchiveJob, directory: ArchiveDirectory, cluster: ConnectCluster, until: ExitStack) -> SeriesStages:
    return SeriesStages(
        job,
        images=directory.images,
        probabilities=directory.probabilities,
        readers={image.name: image.reader for image in job.images},
        cluster=cluster,
        until=until,
    )


def _ingest(job: ArchiveJob, directory: ArchiveDirectory, work: CellWork, stages: SeriesStages) -> None:
    """Read the blocks of dates that the cell needs and that no run has read yet, each once."""
    for image in {image.name: image for image, _ in work.to_read}.values():
        path = directory.image_path(image)
        if not path.exists():
            create_image_store(
                path,
                grid=job.grid,
                time=image.files.time,
                bands=job.bundle.band_names,
                dtype=job.bundle.dtype,
                block=job.blocks.size,
                attrs={"files": dict(image.digest.files)},
            )
    ledger = directory.root.ledger("ingest")
    items = {read_name(image.name, job.blocks[index].name): (image.name, index) for image, index in work.to_read}
    if job.request.retry_failed:
        ledger.forget([name for name in items if ledger.state(name) == "failed"], reason="--retry-failed")
    elif replaced := [name for name in failed_by_replacement(ledger) if name in items]:
        ledger.forget(replaced, reason=REPLACED)
    # failed blocks of other cells, or of dates that are in no pair any more
    elsewhere = sum(entry.block not in items for entry in ledger.entries("failed"))
    result = stages.ingest(items.items(), total=ledger.count("done") + elsewhere + len(items), ledger=ledger)
    for image in {image.name: image for image, _ in work.to_read}.values():
        names = [name for name, (date, _) in items.items() if date == image.name]
        quarantine_what_was_replaced(ledger, image.reader.mosaic, names, image.digest.files)
    current_observer().end(result.summary(pixels=len(items) * job.blocks.size**2, share=1.0))


def _infer(
    job: ArchiveJob, directory: ArchiveDirectory, cell: Cell, stages: SeriesStages, fresh: set[str]
) -> dict[str, str]:
    """Compute the missing pairs of every block whose pixels could all be read; returns errors by block.

    Args:
        fresh: pairs without a finished block; those that are begun are taken out.
    """
    for pair in job.pairs:
        path = directory.pair_path(pair)
        if not path.exists():
            create_probability_store(
                path,
                grid=job.grid,
                interval=(pair.earlier.files.time, pair.later.files.time),
                block=job.blocks.size,
                attrs={"version": job.version, "images": [image.name for image in pair.images]},
            )
    ledger, ingested = directory.cell(cell).ledger("infer"), directory.root.ledger("ingest")
    work = cell_work(job, cell, ingested=ingested, inferred=ledger)
    _settle(ledger, work.tasks, take_up_failed=job.request.retry_failed)
    quarantine_what_lacks_pixels(job, work.tasks.items(), ingested=ingested, inferred=ledger)
    result = stages.infer(
        by_chains(work.tasks, job.blocks),
        total=ledger.count("done") + len(work.tasks),
        ledger=ledger,
        on_ready=lambda arithmetic: directory.require_execution(
            {name for task in work.to_compute for name in task.names}, arithmetic, fresh=fresh
        ),
    )
    ledger.append(
        Entry(block=entry.block, state="failed", facts={**entry.facts, PAIRS: work.tasks[entry.block].names})
        for entry in ledger.entries("failed")
        if PAIRS not in entry.facts
    )
    directory.version.add_seconds("infer", result.seconds)
    current_observer().end(result.summary(pixels=work.embeddings * job.blocks.size**2, share=1.0))
    return dict(result.failed)


def _settle_arithmetic(
    job: ArchiveJob, directory: ArchiveDirectory, work: ArchiveWork, stages: SeriesStages
) -> set[str]:
    """Set back pairs that were begun with other arithmetic; returns the pairs without a finished block.

    An archive outlives its machines and versions of torch. A finished pair stays as it is; the blocks of a pair that
    was begun with other arithmetic are computed anew.
    """
    if not work.begun:
        return set(work.fresh)
    arithmetic, recorded = stages.arithmetic(), directory.executions
    others = {name for name in work.begun if recorded.get(name) != arithmetic}
    if others:
        current_observer().warn(
            f"{len(others)} pairs were begun with other arithmetic (another device, version of torch, --batch or "
            "--compile): their finished blocks are computed anew"
        )
        for cell in job.cells:
            ledger = directory.cell(cell).ledger("infer")
            set_back_pairs(ledger, others, blocks=None, reason="begun with other arithmetic")
    return {*work.fresh, *others}


def _settle(ledger: Ledger, items: Iterable[str], *, take_up_failed: bool) -> None:
    """Set back failed tasks that are taken up again or not part of the work any more; the others count as failed."""
    names = set(items)
    replaced = set(failed_by_replacement(ledger))
    stale = [
        entry.block
        for entry in ledger.entries("failed")
        if take_up_failed or entry.block not in names or entry.block in replaced
    ]
    if stale:
        ledger.forget(stale, reason="--retry-failed" if take_up_failed else "not wanted, or replaced")


def _set_back_lost_images(job: ArchiveJob, directory: ArchiveDirectory, cell: Cell) -> None:
    """Imagery that failed tasks need may have been lost since it was ingested: let it be read anew."""
    ingested, inferred = directory.root.ledger("ingest"), directory.cell(cell).ledger("infer")
    work = cell_work(job, cell, ingested=ingested, inferred=inferred)
    failed = (task for name, task in work.tasks.items() if inferred.state(name) == "failed")
    reads = {(date, block.index) for task in failed for date, block in job.reads(task)}
    set_back_lost(ingested, stored_images(job, sorted(reads), directory.images))


def process_cell(
    job: ArchiveJob,
    directory: ArchiveDirectory,
    cell: Cell,
    stages: SeriesStages,
    fresh: set[str],
    makers: PlateMakers,
) -> CellSummary:
    """Read, infer and make the products of one cell.

    Raises:
        FailedBlocksError: blocks are in quarantine; all others are finished.
    """
    place = directory.cell(cell)
    place.path.mkdir(parents=True, exist_ok=True)
    if job.request.retry_failed:
        _set_back_lost_images(job, directory, cell)
    work = cell_work(job, cell, ingested=directory.root.ledger("ingest"), inferred=place.ledger("infer"))
    if work.to_read:
        _ingest(job, directory, work, stages)
    failed = _infer(job, directory, cell, stages, fresh) if work.tasks else {}
    if failed:
        raise FailedBlocksError(failed, total=len(cell.blocks) * len(job.pairs), directory=place.path)
    return make_cell_products(job, directory, cell, makers)


def run_reprocessing(
    request: ReprocessRequest, make_predictor: Callable[[], Predictor] | None = None
) -> ArchiveSummary:
    """Every pair of dates of an archive, and only what is new since the last time.

    Run it again whenever there may be a new date: what is finished is not computed again, cell by cell.

    Args:
        make_predictor: makes the predictor on each worker; None = DASNet from the request's bundle.

    Raises:
        FailedCellsError: what ended some cells; the others are finished.
        BrokenDatesError: dates whose files cannot be read; all others are finished, and so are the products.
    """
    job = plan_archive(request)
    observer = current_observer()
    for warning in job.warnings:
        observer.warn(warning)
    directory = ArchiveDirectory(job)
    with directory.root.locked(), ExitStack() as until_done:
        adopt(job, directory)
        work = work_of(job, directory)
        cluster = when_needed(job.cluster, until_done)
        stages = _stages(job, directory, cluster, until_done)
        makers = PlateMakers(
            cluster=cluster,
            effort=job.effort,
            threshold=job.bundle.threshold,
            min_area_m2=request.min_area,
            until=until_done,
        )
        tasks = [task for cell in work.cells.values() for task in cell.to_compute]
        stages.predict_with(
            make_predictor
            or predictor_factory(
                job,
                dates=max((len(task.dates) for task in tasks), default=2),
                pairs=max((len(task.pairs) for task in tasks), default=1),
            )
        )
        fresh = _settle_arithmetic(job, directory, work, stages)
        finished: dict[str, CellSummary] = {}
        failed: dict[str, Exception] = {}
        for cell in job.cells:
            title = f"{request.output.name} {cell.name}"
            part = Part(kind="reprocess-cell", title=title, parameters={"name": cell.name})
            try:
                finished[cell.name] = observer.part(
                    part, partial(process_cell, job, directory, cell, stages, fresh, makers)
                )
            except CELL_FAILURES as error:
                failed[cell.name] = error
                observer.warn(f"cell {cell.name} failed: {str(error).splitlines()[0]}")
        until_done.close()
        _show_cells(job, failed)
        if failed:
            if finished:
                write_archive_collection(job, directory, finished)
            raise FailedCellsError(failed, total=len(job.cells), directory=request.output)
        summary = make_archive_products(job, directory, finished)
        if job.broken:
            raise BrokenDatesError(job.broken, dates=len(job.images), directory=request.output)
        return summary


def _show_cells(job: ArchiveJob, failed: dict[str, Exception]) -> None:
    current_observer().show(
        Table(
            "cells",
            ["cell", "blocks", "state"],
            [
                (cell.name, len(cell.blocks), str(failed[cell.name]).splitlines()[0] if cell.name in failed else "done")
                for cell in job.cells
            ],
            "Cells of the region",
        )
    )

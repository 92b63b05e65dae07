"""reprocess-archive: every pair of dates of an archive, and only what is new since the last time.

The region is cut into cells; each is a sub-flow of its own: read what is missing → infer what is missing → products. A
cell that fails does not stop the others. Then all cells together make the cube, the collection and the timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial

from flows.archive.cell_products import CellSummary, make_cell_products
from flows.archive.directory import ArchiveDirectory
from flows.archive.job import ArchiveJob, read_name, resolve_archive
from flows.archive.overview import ArchiveSummary, make_archive_products, write_archive_collection
from flows.archive.request import ReprocessRequest
from flows.archive.work import PAIRS, CellWork, cell_work, set_back_pairs, work_of
from flows.cluster.equipment import describe_arithmetic
from flows.cluster.layout import ClusterLayout
from flows.cluster.stage import ConnectCluster, Effort, Stage, Tool, run_stage, when_needed
from flows.inference.lost_images import set_back_lost
from flows.inference.predictor import predictor_factory
from flows.inference.tools import SeriesIngestTool, make_series_tool
from flows.run.artifacts import Table, plan_page
from flows.run.errors import FailedBlocksError, FailedCellsError
from flows.run.observer import Part, current_observer, step
from flows.run.versions import versions
from storage.errors import IntegrityError
from storage.geometry import grid_facts
from storage.stores.create import create_image_store, create_probability_store
from tiling.grid import Cell
from tiling.ledger import Entry, Ledger
from tiling.protocols import Predictor
from tiling.worker import SeriesInference, SeriesTask

CELL_FAILURES = (FailedBlocksError, IntegrityError)
"""What ends a cell, and lets the next one begin."""


@step("plan")
def plan_archive(request: ReprocessRequest) -> ArchiveJob:
    """Read the archive and the headers, find or recall the grid; refuse what cannot work; say what is to be done."""
    job = resolve_archive(request)
    work = work_of(job)
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


def ingest(job: ArchiveJob, directory: ArchiveDirectory, work: CellWork, cluster: ConnectCluster, retries: int) -> None:
    """Read what the cell needs and nobody has read yet, each block of each date once."""
    for image in {image.name: image for image, _ in work.to_read}.values():
        store = directory.image_store(image)
        if not store.path.exists():
            store.path.parent.mkdir(parents=True, exist_ok=True)
            create_image_store(
                store.path,
                grid=job.grid,
                time=image.files.time,
                bands=[band.name for band in job.bundle.bands],
                dtype=job.bundle.dtype,
                block=job.blocks.size,
                attrs={"files": dict(image.digest.files)},
            )
    ledger = directory.root.ledger("ingest")
    items = {read_name(image, job.blocks[index].name): (image.name, index) for image, index in work.to_read}
    if job.request.retry_failed:
        ledger.forget([name for name in items if ledger.state(name) == "failed"], reason="--retry-failed")
    # of other cells, or not wanted any more
    elsewhere = sum(entry.block not in items for entry in ledger.entries("failed"))
    readers = {image.name: image.reader for image in job.images}
    result = run_stage(
        Stage(
            name="ingest",
            tool=Tool(
                make=lambda layout: partial(
                    SeriesIngestTool, images=directory.images, readers=readers, blocks=job.blocks
                )
            ),
            items=items.items(),
            total=ledger.count("done") + elsewhere + len(items),
            ledger=ledger,
        ),
        cluster=cluster,
        effort=Effort(in_flight=job.request.cluster.in_flight, retries=retries),
    )
    current_observer().end(result.summary(pixels=len(items) * job.blocks.size**2, share=1.0))


def infer(
    job: ArchiveJob,
    directory: ArchiveDirectory,
    cell: Cell,
    cluster: ConnectCluster,
    make_predictor: Callable[[], Predictor],
    fresh: set[str],
) -> dict[str, str]:
    """Compute the missing pairs of every block whose pixels are all there; returns errors by block.

    Args:
        fresh: pairs without a finished block; those that are begun are taken out.
    """
    for pair in job.pairs:
        store = directory.pair_store(pair)
        if not store.path.exists():
            store.path.parent.mkdir(parents=True, exist_ok=True)
            create_probability_store(
                store.path,
                grid=job.grid,
                interval=(pair.earlier.files.time, pair.later.files.time),
                block=job.blocks.size,
                attrs={"version": job.version, "images": [image.name for image in pair.images]},
            )
    ledger, ingested = directory.cell(cell).ledger("infer"), directory.root.ledger("ingest")
    work = cell_work(job, cell, ingested=ingested, inferred=ledger)
    _settle(ledger, work.tasks, take_up_failed=job.request.retry_failed)
    _quarantine_what_lacks_pixels(job, ingested, ledger, work)
    settled = ledger.count("done")
    result = run_stage(
        Stage(
            name="infer",
            tool=Tool(make=partial(_series_tool, job, directory, make_predictor)),
            items=work.tasks.items(),
            total=settled + len(work.tasks),
            ledger=ledger,
        ),
        cluster=cluster,
        effort=Effort(in_flight=job.request.cluster.in_flight, retries=job.request.retries),
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


def settle_arithmetic(
    job: ArchiveJob, directory: ArchiveDirectory, cluster: ConnectCluster, make_predictor: Callable[[], Predictor]
) -> set[str]:
    """See that no pair is finished with other arithmetic than it was begun with; returns those with no finished block.

    An archive outlives its machines and versions of torch. A pair that is finished stays as it is; of one that was
    begun on another, the blocks that are there are computed anew.
    """
    work = work_of(job)
    begun = work.begun
    others: set[str] = set()
    if begun:
        client, layout = cluster()
        now = describe_arithmetic(client, _series_tool(job, directory, make_predictor, layout))
        before = directory.executions
        others = {name for name in begun if before.get(name) != now}
    if others:
        current_observer().warn(
            f"{len(others)} pairs were begun with other arithmetic (another device, version of torch, --batch or "
            "--compile): their finished blocks are computed anew"
        )
        for cell in job.cells:
            ledger = directory.cell(cell).ledger("infer")
            set_back_pairs(ledger, others, blocks=None, reason="begun with other arithmetic")
    return {*work.fresh, *others}


def _series_tool(
    job: ArchiveJob, directory: ArchiveDirectory, make_predictor: Callable[[], Predictor], layout: ClusterLayout
) -> Callable[[], SeriesInference]:
    return partial(
        make_series_tool,
        make_predictor,
        directory.images,
        directory.probabilities,
        job.blocks,
        job.lattice,
        layout.lanes,
    )


def _settle(ledger: Ledger, items: Iterable[str], *, take_up_failed: bool) -> None:
    """Set back what failed and is not wanted any more, or is to be taken up: what is left counts."""
    wanted = set(items)
    stale = [entry.block for entry in ledger.entries("failed") if take_up_failed or entry.block not in wanted]
    if stale:
        ledger.forget(stale, reason="--retry-failed" if take_up_failed else "not wanted any more")


def _quarantine_what_lacks_pixels(job: ArchiveJob, ingested: Ledger, ledger: Ledger, work: CellWork) -> None:
    """Blocks whose halo reaches into pixels that could not be read cannot be computed: they fail, nobody guesses."""
    missing = {entry.block: entry for entry in ingested.entries("failed")}
    if not missing:
        return
    entries = []
    for name, wanted in work.tasks.items():
        lacking = [read for read in _reads(job, wanted) if read in missing]
        if lacking and ledger.state(name) == "pending":
            why = missing[lacking[0]].facts.get("error", "")
            error = f"needs {lacking[0]}, which could not be read: {why}"
            facts = {"error": error, "attempts": 0, PAIRS: wanted.names}
            entries.append(Entry(block=name, state="failed", facts=facts))
    ledger.append(entries)


def _set_back_lost_images(job: ArchiveJob, directory: ArchiveDirectory, cell: Cell) -> None:
    """Of the tasks that failed: what they need may have been lost since it was read, and is then read anew."""
    ingested, inferred = directory.root.ledger("ingest"), directory.cell(cell).ledger("infer")
    work = cell_work(job, cell, ingested=ingested, inferred=inferred)
    failed = [wanted for name, wanted in work.tasks.items() if inferred.state(name) == "failed"]
    for image in job.images:
        boxes = [job.lattice.read_box(job.blocks[task.block].box) for task in failed if image.name in task.dates]
        needed = {block.index for box in boxes for block in job.blocks.touching(box)}
        set_back_lost(ingested, directory.stored_images([image], needed))


def _reads(job: ArchiveJob, wanted: SeriesTask) -> list[str]:
    box = job.lattice.read_box(job.blocks[wanted.block].box)
    return [f"{date}/{block.name}" for block in job.blocks.touching(box) for date in wanted.dates]


def process_cell(
    job: ArchiveJob,
    directory: ArchiveDirectory,
    cell: Cell,
    cluster: ConnectCluster,
    make_predictor: Callable[[], Predictor],
    fresh: set[str],
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
        ingest(job, directory, work, cluster, job.request.retries)
    failed = infer(job, directory, cell, cluster, make_predictor, fresh) if work.tasks else {}
    if failed:
        raise FailedBlocksError(failed, total=len(cell.blocks) * len(job.pairs), directory=place.path)
    return make_cell_products(job, directory, cell)


def run_reprocessing(
    request: ReprocessRequest, make_predictor: Callable[[], Predictor] | None = None
) -> ArchiveSummary:
    """The flow's body; call it inside a flow run.

    Args:
        make_predictor: makes the predictor on each worker; None = DASNet from the request's bundle.
    """
    job = plan_archive(request)
    for warning in job.warnings:
        current_observer().warn(warning)
    directory = ArchiveDirectory(job)
    with directory.root.locked(), ExitStack() as until_done:
        adopt(job, directory)
        cluster = when_needed(request.cluster, until_done)
        tasks = [task for work in work_of(job).cells.values() for task in work.to_compute]
        make = make_predictor or predictor_factory(
            job,
            dates=max((len(task.dates) for task in tasks), default=2),
            pairs=max((len(task.pairs) for task in tasks), default=1),
        )
        fresh = settle_arithmetic(job, directory, cluster, make)
        finished: dict[str, CellSummary] = {}
        failed: dict[str, Exception] = {}
        for cell in job.cells:
            title = f"{request.output.name} {cell.name}"
            part = Part(kind="reprocess-cell", title=title, parameters={"name": cell.name})
            try:
                finished[cell.name] = current_observer().part(
                    part, partial(process_cell, job, directory, cell, cluster, make, fresh)
                )
            except CELL_FAILURES as error:
                failed[cell.name] = error
                current_observer().warn(f"cell {cell.name} failed: {str(error).splitlines()[0]}")
        until_done.close()
        _show_cells(job, failed)
        if failed:
            if finished:
                write_archive_collection(job, directory, finished)
            raise FailedCellsError(failed, total=len(job.cells), directory=request.output)
        return make_archive_products(job, directory, finished)


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

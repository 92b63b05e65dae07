"""Products of a whole archive: the cube, the collection and the timeline over all its cells."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pystac

from dasnet.networks.architectures import title_of
from flows.archive.cell_products import CellSummary, PairSummary, collection_id, verify_cell
from flows.archive.directory import CELL_PRODUCTS, COLLECTION, CUBE, LOOK, PAIR_PRODUCTS, TIMELINE, ArchiveDirectory
from flows.archive.job import ArchiveJob, DatedImage
from flows.inference.lost_images import looking_at, stored_images
from flows.inference.product_ledger import ProductLedger
from flows.run.artifacts import Picture, page_of_lines
from flows.run.observer import current_observer, step
from flows.run.versions import versions
from storage.errors import IntegrityError
from storage.geometry import metres_a_pixel
from storage.pages.page import Section, area_words
from storage.pages.thumbnails import image_look, probability_look, step_of
from storage.pages.timeline import Timeline, TimelineDate, TimelinePair, write_timeline
from storage.products.stac import ItemAsset, write_collection
from storage.reference_systems import crs_name
from storage.stores.cube import assemble_cube
from tiling.conventions import changed_level


@dataclass(frozen=True, kw_only=True)
class ArchiveSummary:
    """Products and changes of an archive.

    Attributes:
        products: path of each product of the whole region.
        pairs: (earlier day, later day, changes between them).
    """

    products: Mapping[str, Path]
    pairs: tuple[tuple[str, str, PairSummary], ...]

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        return [
            *(
                ("changed", f"{start} → {end}: {area_words(total.changed_m2)} in {total.polygons:,} places")
                for start, end, total in self.pairs
            ),
            *((name, str(path)) for name, path in self.products.items()),
        ]


@step("archive products")
def make_archive_products(
    job: ArchiveJob, directory: ArchiveDirectory, cells: Mapping[str, CellSummary]
) -> ArchiveSummary:
    """The cube, the collection and the timeline over all cells."""
    observer, place = current_observer(), directory.version.path
    observer.begin("archive", 3, unit="files")
    with _verified(job, directory):
        assemble_cube(
            place / CUBE,
            [directory.pair_store(pair) for pair in job.pairs],
            times=[pair.reported.files.time for pair in job.pairs],
            intervals=[(pair.earlier.files.time, pair.later.files.time) for pair in job.pairs],
            attrs={"version": job.version, "threshold": job.bundle.threshold},
        )
    observer.advance()
    totals = {pair.name: sum((cell.pairs[pair.name] for cell in cells.values()), PairSummary()) for pair in job.pairs}
    timeline = describe_timeline(job, directory, cells, totals)
    for warning in timeline.warnings:
        observer.warn(warning)
    picture = write_timeline(place / TIMELINE, timeline)
    observer.advance()
    summary = ArchiveSummary(
        products={"collection": place / COLLECTION, "cube": place / CUBE, "timeline": place / TIMELINE},
        pairs=tuple((str(pair.earlier.day), str(pair.later.day), totals[pair.name]) for pair in job.pairs),
    )
    write_archive_collection(job, directory, cells)
    directory.root.update(state="finished", latest=job.version)
    observer.show(Picture("first-change", picture, "When a change was first seen, by pair of dates"))
    observer.show(page_of_lines("products", summary.lines(), "Products of the archive"))
    observer.end(", ".join(path.name for path in summary.products.values()))
    return summary


@contextmanager
def _verified(job: ArchiveJob, directory: ArchiveDirectory) -> Iterator[None]:
    """Where a pair cannot be read, set back the blocks that storage has lost; raises IntegrityError naming them."""
    try:
        yield
    except IntegrityError:
        for cell in job.cells:
            verify_cell(job, directory, cell)
        raise


def describe_timeline(
    job: ArchiveJob, directory: ArchiveDirectory, cells: Mapping[str, CellSummary], totals: Mapping[str, PairSummary]
) -> Timeline:
    """What the page says, with its pictures; dates and pairs that have a thumbnail are not read again.

    Args:
        totals: changes over all cells, by name of the pair.
    """
    valid: Counter[str] = Counter()
    for entry in directory.root.ledger("ingest").entries("done"):
        valid[entry.block.partition("/")[0]] += entry.facts["valid"]
    shares = {image.name: valid[image.name] / job.plan.pixels for image in job.images}
    dates = []
    for image in job.images:
        store = directory.image_store(image)
        with looking_at(
            stored_images(job, ((image.name, block.index) for block in job.blocks), directory.images),
            ingested=partial(directory.root.ledger, "ingest"),
        ):
            pixels, is_valid = image_look(store, store.path.with_suffix(LOOK))
        dates.append(TimelineDate(day=image.day, image=pixels, valid=is_valid, note=_note(job, image, shares)))
    number = {image.name: index for index, image in enumerate(job.images)}
    pairs = []
    for pair in job.pairs:
        store, total = directory.pair_store(pair), totals[pair.name]
        digest = hashlib.sha256("".join(cell.digests[pair.name] for cell in cells.values()).encode()).hexdigest()
        with _verified(job, directory):
            probability = probability_look(store, store.path.with_suffix(LOOK), digest=digest)
        pairs.append(
            TimelinePair(
                earlier=number[pair.earlier.name],
                later=number[pair.later.name],
                probability=probability,
                changed_m2=total.changed_m2,
                places=total.polygons,
                share=total.changed_share,
            )
        )
    most = max(totals.values(), key=lambda total: total.changed_m2)
    compared = sum(total.valid_pixels for total in totals.values())
    empty = [str(image.day) for image in job.images if not shares[image.name]]
    return Timeline(
        title=f"{job.request.output.resolve().name}: {job.images[0].day} to {job.images[-1].day}",
        subtitle=f"{job.grid.width:,} × {job.grid.height:,} px of {job.grid.resolution.x:g} in "
        f"{crs_name(job.grid.crs)}, bundle {Path(job.request.bundle).stem}, version {job.version}",
        dates=dates,
        pairs=pairs,
        level=changed_level(job.bundle.threshold),
        threshold=job.bundle.threshold,
        pixel_m=metres_a_pixel(job.grid) * step_of(directory.image_store(job.images[0])),
        cards=[
            ("Dates", f"{len(job.images)}", "each embedded once for all its pairs"),
            ("Pairs", f"{len(job.pairs)}", f"by the rule {job.request.pairing}"),
            ("Most in one pair", area_words(most.changed_m2), "changed area"),
            ("Compared", f"{compared / 1e6:,.1f} Mpx", "valid in both dates, over all pairs"),
        ],
        warnings=[*job.warnings, *([f"no valid pixel on the grid: {', '.join(empty)}"] if empty else [])],
        sections=_details(job, directory, totals),
    )


def _note(job: ArchiveJob, image: DatedImage, shares: Mapping[str, float]) -> str:
    files = len(image.reader.mosaic.sources)
    return ", ".join(
        [
            f"{shares[image.name]:.1%} valid",
            *([f"of {files} files"] if files > 1 else []),
            *(["resampled"] if image.name in job.resampled else []),
        ]
    )


def _details(job: ArchiveJob, directory: ArchiveDirectory, totals: Mapping[str, PairSummary]) -> list[Section]:
    executions = directory.executions
    alike = Counter(json.dumps(executions.get(pair.name, {})) for pair in job.pairs)
    return [
        Section(
            heading="Pairs",
            header=("from", "to", "changed", "places", "share of what is valid", "pixels compared"),
            rows=[
                (
                    str(pair.earlier.day),
                    str(pair.later.day),
                    area_words(total.changed_m2),
                    f"{total.polygons:,}",
                    f"{total.changed_share:.2%}",
                    f"{total.valid_pixels:,}",
                )
                for pair in job.pairs
                for total in [totals[pair.name]]
            ],
        ),
        Section(
            heading="Inputs",
            header=("date", "STAC items", "file", "SHA-256"),
            rows=[
                (str(image.day), ", ".join(source.id for source in image.files.items), file, digest)
                for image in job.images
                for file, digest in image.digest.files.items()
            ],
        ),
        Section(
            heading="Parameters",
            header=("what", "value"),
            rows=[
                ("grid", f"{crs_name(job.grid.crs)}, {tuple(round(value, 9) for value in list(job.grid.affine)[:6])}"),
                ("bands", ", ".join(f"{number}" for number in job.images[0].reader.bands)),
                ("resampling", job.request.resampling),
                *job.parameters.items(),
                ("block", job.blocks.size),
                ("threshold", f"{job.bundle.threshold:.4f}"),
                *(
                    (name if len(alike) == 1 else f"{name}, of {count} pairs", value)
                    for execution, count in alike.items()
                    for name, value in json.loads(execution).items()
                ),
                *versions().items(),
            ],
        ),
        Section(heading="Model card", preformatted=job.bundle.card),
    ]


def write_archive_collection(job: ArchiveJob, directory: ArchiveDirectory, cells: Mapping[str, CellSummary]) -> None:
    """The collection of all finished cells; without the cube and the timeline where a cell is missing."""
    place = directory.version.path
    missing = [cell.name for cell in job.cells if cell.name not in cells]
    first = "differs from the baseline" if job.request.pairing.startswith("baseline:") else "shows a change"
    maps = {"peak": "Highest change probability of all pairs", "first": f"First day that {first}"}
    assets = (
        []
        if missing
        else [
            ItemAsset(
                key="cube",
                path=place / CUBE,
                sha256="",
                media_type="application/vnd.zarr; version=3",
                title="Change probability over time, y and x",
                roles=["data"],
            ),
            ItemAsset(
                key="timeline",
                path=place / TIMELINE,
                sha256=hashlib.sha256((place / TIMELINE).read_bytes()).hexdigest(),
                media_type=pystac.MediaType.HTML,
                title="Timeline",
                roles=["overview"],
            ),
        ]
    )
    finished = [cell for cell in job.cells if cell.name in cells]
    for cell in finished:
        products = ProductLedger(directory.cell(cell), CELL_PRODUCTS)
        assets += [
            ItemAsset(
                key=f"{key}-{cell.name}",
                path=products.path(key),
                sha256=products.digest(key),
                media_type=pystac.MediaType.COG,
                title=f"{title}, {cell.name}",
                roles=["data"],
            )
            for key, title in maps.items()
        ]
    write_collection(
        place / COLLECTION,
        collection_id=collection_id(job),
        title=f"Changes of {job.request.output.resolve().name}",
        description=f"Change probability of {len(job.pairs)} pairs of {len(job.images)} dates, by "
        f"{title_of(job.bundle.architecture)} ({Path(job.request.bundle).stem}), pairing rule {job.request.pairing}"
        + (f"; not finished: {', '.join(missing)}" if missing else ""),
        grid=job.grid,
        span=(job.images[0].files.time, job.images[-1].files.time),
        items=[
            f"./{(directory.products(cell, pair).path / PAIR_PRODUCTS['item']).relative_to(place)}"
            for cell in finished
            for pair in job.pairs
        ],
        assets=assets,
        summaries={
            "dasnet:version": [job.version],
            "dasnet:dates": [str(image.day) for image in job.images],
            "dasnet:cells": [cell.name for cell in finished],
            **({"dasnet:missing_cells": missing} if missing else {}),
        },
    )

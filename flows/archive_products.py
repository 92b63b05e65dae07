"""What a person gets of an archive: products of each pair and cell, a collection, a cube, maps and a timeline."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows import artifacts
from flows.archive_job import ArchiveDirectory, ArchiveJob, Pair, finished_pairs
from flows.console import current_reporter
from flows.make_products import area
from flows.products import ProductLedger
from flows.versions import versions
from storage.cog import write_cog
from storage.errors import IntegrityError
from storage.page import Page, Section, write_page
from storage.quicklook import make_quicklooks, write_quicklook
from storage.series import PairView, SeriesMaps, assemble_cube
from storage.stac import ItemAsset, write_collection, write_item
from storage.store import NODATA
from storage.timeline import (
    area_chart,
    changes_picture,
    dates_picture,
    first_look,
    first_picture,
    image_look,
    probability_look,
)
from storage.vector import changed_levels, write_changes
from tiling.grid import Cell

PAIR_PRODUCTS = {
    "probability": "change_probability.tif",
    "changes": "changes.parquet",
    "quicklook": "quicklook.png",
    "item": "item.json",
}
CELL_PRODUCTS = {"peak": "peak_probability.tif", "first": "first_change.tif"}


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """What came of one pair in one cell, or in all cells together."""

    polygons: int = 0
    changed_m2: float = 0.0
    changed_pixels: int = 0
    valid_pixels: int = 0

    def __add__(self, other: PairSummary) -> PairSummary:
        mine, theirs = Counter(asdict(self)), asdict(other)
        return PairSummary(**{name: mine[name] + theirs[name] for name in theirs})


@dataclass(frozen=True, kw_only=True)
class CellSummary:
    """What came of one cell: by name of the pair, and what was found to be done already."""

    pairs: Mapping[str, PairSummary]


@dataclass(frozen=True, kw_only=True)
class ArchiveSummary:
    """What came of an archive.

    Attributes:
        products: path of each product of the whole region.
        pairs: (earlier day, later day, what came of them).
    """

    products: Mapping[str, Path]
    pairs: tuple[tuple[str, str, PairSummary], ...]

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        return [
            *(
                ("changed", f"{start} → {end}: {area(found.changed_m2)} in {found.polygons:,} places")
                for start, end, found in self.pairs
            ),
            *((name, str(path)) for name, path in self.products.items()),
        ]


class PairVerifier:
    """Compares each block that a product reads with the digest that its worker reported.

    A block whose bytes are others is set back with the tasks that wrote it, and the cell ends naming it.
    """

    def __init__(self, job: ArchiveJob, directory: ArchiveDirectory, cell: Cell, pair: Pair) -> None:
        self._blocks, self._cell, self._pair = job.blocks, cell, pair
        self._ledger = directory.cell(cell).ledger("infer")
        self._digests = finished_pairs(self._ledger)
        self._wrong: list[str] = []

    def __call__(self, rows: slice, cols: slice, pixels: NDArray[np.uint8] | None) -> None:
        size, box = self._blocks.size, self._cell.box
        block = self._blocks[(rows.start + box.y0) // size * self._blocks.cols + (cols.start + box.x0) // size]
        expected = self._digests[block.name][self._pair.name]
        if pixels is None or hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest() != expected:
            self._wrong.append(block.name)

    @property
    def digest(self) -> str:
        """Of all blocks of the pair in the cell, as the ledger has them."""
        names = [self._blocks[index].name for index in self._cell.blocks]
        return hashlib.sha256("".join(self._digests[name][self._pair.name] for name in names).encode()).hexdigest()

    def conclude(self) -> None:
        """Raises IntegrityError if any block was not what the ledger says."""
        if self._wrong:
            tasks = [
                entry.block
                for entry in self._ledger.entries("done")
                if entry.block.partition("/")[0] in self._wrong and self._pair.name in entry.facts["digests"]
            ]
            self._ledger.forget(tasks, reason="digest of the stored block differs from the ledger's")
            raise IntegrityError(
                f"{self._cell.name}, {self._pair.name}: {len(self._wrong)} blocks are not what their workers wrote "
                f"({', '.join(self._wrong[:10])}): storage lost or changed bytes. They are set back; run the same "
                "command again to compute them anew"
            )


@task(name="products", task_run_name="products of {cell.name}", cache_policy=NO_CACHE, persist_result=False)
def make_cell_products(job: ArchiveJob, directory: ArchiveDirectory, cell: Cell) -> CellSummary:
    """COG, polygons, quicklook and STAC item of every pair, and the two maps over all pairs; what stands is kept."""
    reporter = current_reporter()
    reporter.begin("products", len(job.pairs), unit="pairs")
    found, digests = {}, {}
    for pair in job.pairs:
        verifier = PairVerifier(job, directory, cell, pair)
        digests[pair.name] = verifier.digest
        found[pair.name] = _make_pair(job, directory, cell, pair, verifier)
        reporter.advance()
    maps = SeriesMaps(
        views=tuple(directory.view(cell, pair) for pair in job.pairs),
        seen=tuple(pair.later.day for pair in job.pairs),
        threshold=job.bundle.threshold,
    )
    products = ProductLedger(directory.cell(cell), CELL_PRODUCTS)
    directory.cell(cell).ledger_directory.mkdir(parents=True, exist_ok=True)
    for name, write in (("peak", maps.write_peak), ("first", maps.write_first)):
        products.make(name, partial(_written, write), parameters={"pairs": digests, "threshold": job.bundle.threshold})
    reporter.end(f"{cell.name}: {len(job.pairs)} pairs")
    return CellSummary(pairs=found)


def _written(write: Callable[[Path], None], path: Path) -> dict[str, Any]:
    write(path)
    return {}


def _make_pair(
    job: ArchiveJob, directory: ArchiveDirectory, cell: Cell, pair: Pair, verifier: PairVerifier
) -> PairSummary:
    place = directory.products(cell, pair)
    place.ledger_directory.mkdir(parents=True, exist_ok=True)
    products, view = ProductLedger(place, PAIR_PRODUCTS), directory.view(cell, pair)
    threshold, min_area = job.bundle.threshold, job.request.min_area
    parameters: dict[str, Any] = {"blocks": verifier.digest}

    def probability(path: Path) -> dict[str, Any]:
        result = write_cog(view, path, check=verifier, conclude=verifier.conclude)
        return {**asdict(result), "valid_pixels": result.valid_pixels}

    mosaic = products.make("probability", probability, parameters=parameters)
    parameters = {**parameters, "threshold": threshold, "min_area": min_area}
    polygons = products.make(
        "changes",
        lambda path: asdict(write_changes(view, path, threshold=threshold, min_area_m2=min_area)),
        parameters=parameters,
    )
    products.make("quicklook", partial(_quicklook, view, pair, threshold), parameters=parameters)
    made = {name: products.digest(name) for name in ("probability", "changes", "quicklook")}
    products.make(
        "item",
        lambda path: _written(partial(_write_item, job, directory, cell, pair, products), path),
        parameters={**parameters, "assets": made},
    )
    return PairSummary(
        polygons=polygons["count"],
        changed_m2=polygons["area_m2"],
        changed_pixels=int(sum(mosaic["histogram"][changed_levels(threshold) : NODATA])),
        valid_pixels=mosaic["valid_pixels"],
    )


def _quicklook(view: PairView, pair: Pair, threshold: float, path: Path) -> dict[str, Any]:
    captions = (f"{pair.earlier.day}", f"{pair.later.day}", "change probability")
    write_quicklook(path, make_quicklooks(view, threshold=threshold), captions=captions)
    return {}


def _write_item(
    job: ArchiveJob, directory: ArchiveDirectory, cell: Cell, pair: Pair, products: ProductLedger, path: Path
) -> None:
    kinds = {
        "probability": (pystac.MediaType.COG, "Change probability", "data"),
        "changes": ("application/vnd.apache.parquet", "Changed areas", "data"),
        "quicklook": (pystac.MediaType.PNG, "Before, after and change probability", "thumbnail"),
    }
    write_item(
        path,
        item_id=f"{pair.name}-{cell.name}-{job.version}",
        grid=directory.view(cell, pair).grid,
        start=pair.earlier.files.time,
        end=pair.later.files.time,
        assets=[
            ItemAsset(
                key=key,
                path=products.path(key),
                sha256=products.digest(key),
                media_type=kind,
                title=title,
                roles=[role],
            )
            for key, (kind, title, role) in kinds.items()
        ],
        provenance={
            "version": job.version,
            "inputs": {str(image.day): dict(image.digest.files) for image in (pair.earlier, pair.later)},
            "source_items": [source.id for image in (pair.earlier, pair.later) for source in image.files.items],
            "bundle": job.version_identity["bundle"],
            "threshold": job.bundle.threshold,
            "parameters": {**job.parameters, "block": job.blocks.size},
            "execution": (directory.version.describe() or {}).get("execution", {}),
        },
        software=versions(),
        collection=(_collection_id(job), os.path.relpath(directory.version.path / "collection.json", path.parent)),
        derived_from=[
            source.href if "://" in source.href else os.path.relpath(source.href, path.parent)
            for image in (pair.earlier, pair.later)
            for source in image.files.items
            if source.href is not None
        ],
    )


def _collection_id(job: ArchiveJob) -> str:
    return f"{job.request.output.name}-{job.version}"


@task(name="archive products", task_run_name="archive products", cache_policy=NO_CACHE, persist_result=False)
def make_archive_products(
    job: ArchiveJob, directory: ArchiveDirectory, cells: Mapping[str, CellSummary]
) -> ArchiveSummary:
    """The cube, the collection and the timeline over all cells."""
    reporter, place = current_reporter(), directory.version.path
    reporter.begin("archive", 3, unit="files")
    stores = [directory.pair_store(pair) for pair in job.pairs]
    assemble_cube(
        place / "cube.zarr",
        stores,
        intervals=[(pair.earlier.files.time, pair.later.files.time) for pair in job.pairs],
        attrs={"version": job.version, "threshold": job.bundle.threshold},
    )
    reporter.advance()
    pairs = tuple(
        (
            str(pair.earlier.day),
            str(pair.later.day),
            sum((cell.pairs[pair.name] for cell in cells.values()), PairSummary()),
        )
        for pair in job.pairs
    )
    report = place / "timeline.html"
    pictures = write_timeline(report, job, directory, pairs)
    reporter.advance()
    summary = ArchiveSummary(
        products={"collection": place / "collection.json", "cube": place / "cube.zarr", "timeline": report}, pairs=pairs
    )
    _write_collection(job, directory, cells)
    directory.root.update(state="finished", latest=job.version)
    for key, (picture, caption) in pictures.items():
        artifacts.show_picture(key, picture, caption)
    artifacts.show_markdown(
        "products",
        "\n".join(["| | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in summary.lines())]),
        "Products of the archive",
    )
    reporter.end(", ".join(path.name for path in summary.products.values()))
    return summary


def _write_collection(job: ArchiveJob, directory: ArchiveDirectory, cells: Mapping[str, CellSummary]) -> None:
    place = directory.version.path
    maps = {"peak": "Highest change probability of all pairs", "first": "Day on which a change was first seen"}
    assets = [
        ItemAsset(
            key="cube",
            path=place / "cube.zarr",
            sha256="",
            media_type="application/vnd.zarr; version=3",
            title="Change probability over time, y and x",
            roles=["data"],
        ),
        ItemAsset(
            key="timeline",
            path=place / "timeline.html",
            sha256=hashlib.sha256((place / "timeline.html").read_bytes()).hexdigest(),
            media_type=pystac.MediaType.HTML,
            title="Timeline",
            roles=["overview"],
        ),
    ]
    chosen = [cell for cell in job.cells if cell.name in cells]
    for cell in chosen:
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
        place / "collection.json",
        collection_id=_collection_id(job),
        title=f"Changes of {job.request.output.name}",
        description=f"Change probability of {len(job.pairs)} pairs of {len(job.images)} dates, by DASNet "
        f"({job.request.bundle}), pairing rule {job.request.pairing}",
        grid=job.grid,
        span=(job.images[0].files.time, job.images[-1].files.time),
        items=[
            f"./{(directory.products(cell, pair).path / 'item.json').relative_to(place)}"
            for cell in chosen
            for pair in job.pairs
        ],
        assets=assets,
        summaries={
            "dasnet:version": [job.version],
            "dasnet:dates": [str(image.day) for image in job.images],
            "dasnet:cells": [cell.name for cell in chosen],
        },
    )


def write_timeline(
    path: Path, job: ArchiveJob, directory: ArchiveDirectory, pairs: tuple[tuple[str, str, PairSummary], ...]
) -> dict[str, tuple[bytes, str]]:
    """Write the page; returns its pictures with their captions, for artifacts."""
    looks = [
        image_look(directory.image_store(image), directory.image_store(image).path.with_suffix(".look.npz"))
        for image in job.images
    ]
    probabilities = [probability_look(directory.pair_store(pair)) for pair in job.pairs]
    spans = [(pair.earlier.day, pair.later.day) for pair in job.pairs]
    hectares = [found.changed_m2 / 1e4 for *_, found in pairs]
    first = first_look(probabilities, changed_levels(job.bundle.threshold))
    pictures = {
        "first-change": (
            first_picture(first, spans),
            "When a change was first seen, by pair of dates.",
        ),
        "changed-area": (
            area_chart(spans, hectares),
            "Changed area of each pair; a bar spans the time between its dates.",
        ),
        "dates": (
            dates_picture([image for image, _ in looks], [valid for _, valid in looks], [i.day for i in job.images]),
            "Every date, stretched together.",
        ),
        "changes": (
            changes_picture(probabilities, spans),
            "Change probability of every pair: black = 0, light yellow = 1, light grey = nodata.",
        ),
    }
    described = directory.version.describe() or {}
    known = sum(found.valid_pixels for *_, found in pairs)
    write_page(
        path,
        Page(
            title=f"{job.request.output.name}: {job.images[0].day} to {job.images[-1].day}",
            subtitle=f"{job.grid.width:,} × {job.grid.height:,} px of {job.grid.resolution.x:g} in {job.grid.crs}, "
            f"bundle {job.request.bundle}, version {job.version}",
            cards=[
                ("Dates", f"{len(job.images)}", "each embedded once for all its pairs"),
                ("Pairs", f"{len(job.pairs)}", job.request.pairing),
                (
                    "Ever changed",
                    f"{(first >= 0).sum() / max((first > -2).sum(), 1):.1%}",
                    "of what is known, at the pictures' resolution",
                ),
                ("Most in one pair", area(max(found.changed_m2 for *_, found in pairs)), "changed area"),
                ("Compared", f"{known / 1e6:,.1f} Mpx", "valid in both dates, over all pairs"),
            ],
            warnings=job.warnings,
            sections=[
                Section(heading="When", pictures=[pictures["first-change"], pictures["changed-area"]]),
                Section(heading="Dates", pictures=[pictures["dates"]]),
                Section(heading="Changes", pictures=[pictures["changes"]]),
                Section(
                    heading="Pairs",
                    header=("from", "to", "changed", "places", "share of what is valid"),
                    rows=[
                        (
                            start,
                            end,
                            area(found.changed_m2),
                            f"{found.polygons:,}",
                            f"{found.changed_pixels / max(found.valid_pixels, 1):.2%}",
                        )
                        for start, end, found in pairs
                    ],
                ),
                Section(
                    heading="Inputs",
                    header=("date", "file", "SHA-256"),
                    rows=[
                        (str(image.day), file, digest)
                        for image in job.images
                        for file, digest in image.digest.files.items()
                    ],
                ),
                Section(
                    heading="Parameters",
                    header=("what", "value"),
                    rows=[
                        *job.parameters.items(),
                        ("block", job.blocks.size),
                        ("threshold", f"{job.bundle.threshold:.4f}"),
                        *described.get("execution", {}).items(),
                        *versions().items(),
                    ],
                ),
                Section(heading="Model card", preformatted=job.bundle.card),
            ],
        ),
    )
    return pictures

"""What a person gets of each cell of an archive: products of every pair, and maps over all of them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from flows.archive.directory import CELL_PRODUCTS, COLLECTION, PAIR_PRODUCTS, ArchiveDirectory
from flows.archive.job import ArchiveJob, Pair
from flows.archive.work import finished_pairs, set_back_pairs
from flows.inference.lost_images import stored_images
from flows.inference.pair_products import PairProducts, make_parts
from flows.inference.plate_stage import STAGE, PairPlates, PlateMakers, PlateStage
from flows.inference.product_ledger import ProductLedger
from flows.inference.verify import REASON, BlockVerifier, conclude_all
from flows.run.observer import current_observer, step
from storage.products.series_maps import SeriesMaps
from tiling.conventions import NODATA, changed_level
from tiling.grid import Cell


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """Changes of one pair in one cell, or in all cells together."""

    polygons: int = 0
    changed_m2: float = 0.0
    changed_pixels: int = 0
    valid_pixels: int = 0

    @property
    def changed_share(self) -> float:
        """Share of the valid pixels that is changed, 0 … 1."""
        return self.changed_pixels / max(self.valid_pixels, 1)

    def __add__(self, other: PairSummary) -> PairSummary:
        mine, theirs = Counter(asdict(self)), asdict(other)
        return PairSummary(**{name: mine[name] + theirs[name] for name in theirs})


@dataclass(frozen=True, kw_only=True)
class CellSummary:
    """Changes in one cell, by name of the pair; `digests`: one SHA-256 of all of the pair's blocks in the cell."""

    pairs: Mapping[str, PairSummary]
    digests: Mapping[str, str]


def _verifiers(job: ArchiveJob, directory: ArchiveDirectory, cell: Cell) -> dict[str, BlockVerifier]:
    """A verifier of each pair's blocks in a cell; a wrong block is set back for that pair alone."""
    ledger = directory.cell(cell).ledger("infer")
    digests = finished_pairs(ledger)

    def verifier(pair: str) -> BlockVerifier:
        return BlockVerifier(
            job.blocks,
            cell.box,
            expected=lambda block: digests[block][pair],
            set_back=lambda blocks: set_back_pairs(ledger, {pair}, blocks=set(blocks), reason=REASON),
            what=f"{cell.name}, {pair}: ",
        )

    return {pair.name: verifier(pair.name) for pair in job.pairs}


def _digests(job: ArchiveJob, directory: ArchiveDirectory, cell: Cell) -> dict[str, str]:
    """Digest of all blocks of each pair in a cell, as the ledger has them."""
    digests = finished_pairs(directory.cell(cell).ledger("infer"))
    blocks = [job.blocks[index].name for index in cell.blocks]
    return {
        pair.name: hashlib.sha256("".join(digests[name][pair.name] for name in blocks).encode()).hexdigest()
        for pair in job.pairs
    }


def verify_cell(job: ArchiveJob, directory: ArchiveDirectory, cell: Cell) -> None:
    """Compare all blocks of all pairs in a cell with their digests; raises IntegrityError naming what is set back."""
    verifiers = _verifiers(job, directory, cell)
    for pair in job.pairs:
        verifiers[pair.name].look(directory.view(cell, pair))
    conclude_all(verifiers.values())


@step("products", "products of {cell.name}")
def make_cell_products(job: ArchiveJob, directory: ArchiveDirectory, cell: Cell, makers: PlateMakers) -> CellSummary:
    """COG, polygons, quicklook and STAC item of every pair, and the two maps over all pairs; those that stand stay.

    `makers`: of what the products of pairs are joined from.
    """
    observer = current_observer()
    digests, verifiers = _digests(job, directory, cell), _verifiers(job, directory, cell)
    place = directory.cell(cell)
    stage = PlateStage(ledger=place.ledger(STAGE), directory=place.path, makers=makers)
    products = {
        pair.name: _pair_products(job, directory, cell, pair, verifiers[pair.name], stage) for pair in job.pairs
    }
    make_parts([pair for pair in products.values() if not pair.stand()])
    observer.begin("products", len(job.pairs), unit="pairs")
    summaries = {}
    for pair in job.pairs:
        summaries[pair.name] = _make_pair(job, directory, cell, pair, products[pair.name], digests[pair.name])
        observer.advance()
    stage.ledger.remove()
    checks = tuple(_verifiers(job, directory, cell).values())
    maps = SeriesMaps(
        views=tuple(directory.view(cell, pair) for pair in job.pairs),
        days=tuple(pair.reported.day for pair in job.pairs),
        threshold=job.bundle.threshold,
        checks=checks,
    )
    cell_ledger = ProductLedger(directory.cell(cell), CELL_PRODUCTS)
    directory.cell(cell).ledger_directory.mkdir(parents=True, exist_ok=True)
    for name, write in (("peak", maps.write_peak), ("first", maps.write_first)):
        parameters = {"pairs": digests, "days": [str(day) for day in maps.days], "threshold": maps.threshold}
        cell_ledger.make(name, partial(write, conclude=partial(conclude_all, checks)), parameters=parameters)
    observer.end(f"{cell.name}: {len(job.pairs)} pairs")
    return CellSummary(pairs=summaries, digests=digests)


def _pair_products(
    job: ArchiveJob,
    directory: ArchiveDirectory,
    cell: Cell,
    pair: Pair,
    verifier: BlockVerifier,
    stage: PlateStage,
) -> PairProducts:
    place = directory.products(cell, pair)
    place.ledger_directory.mkdir(parents=True, exist_ok=True)
    return PairProducts(
        ProductLedger(place, PAIR_PRODUCTS),
        PairPlates(name=pair.name, reader=directory.view(cell, pair), place=place.plates, verifier=verifier),
        stage,
        stored=lambda: stored_images(
            job, ((image.name, index) for image in pair.images for index in cell.blocks), directory.images
        ),
        ingested=partial(directory.root.ledger, "ingest"),
    )


def _make_pair(
    job: ArchiveJob, directory: ArchiveDirectory, cell: Cell, pair: Pair, products: PairProducts, digest: str
) -> PairSummary:
    """Make the products of a pair in a cell; `digest`: SHA-256 of all its blocks there."""
    place, threshold = directory.products(cell, pair), job.bundle.threshold
    parameters: dict[str, Any] = {"blocks": digest}
    mosaic = products.make_probability(parameters)
    parameters |= {"threshold": threshold, "min_area": job.request.min_area}
    polygons = products.make_changes(parameters)
    products.make_quicklook(parameters, captions=(f"{pair.earlier.day}", f"{pair.later.day}", "change probability"))
    sources = [source for image in pair.images for source in image.files.items]
    execution = directory.executions.get(pair.name, {})
    products.make_item(
        {
            **parameters,
            "collection": collection_id(job),
            "times": [image.files.time.isoformat() for image in pair.images],
            "inputs": [dict(image.digest.files) for image in pair.images],
            "items": [[source.id, source.href] for source in sources],
            "execution": execution,
        },
        item_id=f"{pair.name}-{cell.name}-{job.version}",
        grid=directory.view(cell, pair).grid,
        start=pair.earlier.files.time,
        end=pair.later.files.time,
        provenance={
            "version": job.version,
            "inputs": {str(image.day): dict(image.digest.files) for image in pair.images},
            "source_items": [source.id for source in sources],
            "bundle": job.version_identity["bundle"],
            "threshold": threshold,
            "parameters": {**job.parameters, "block": job.blocks.size},
            "execution": execution,
        },
        made_by=job.bundle.source,
        collection=(collection_id(job), os.path.relpath(directory.version.path / COLLECTION, place.path)),
        derived_from=[
            source.href if "://" in source.href else os.path.relpath(source.href, place.path)
            for source in sources
            if source.href is not None
        ],
    )
    products.remove_parts()
    return PairSummary(
        polygons=polygons["count"],
        changed_m2=polygons["area_m2"],
        changed_pixels=int(sum(mosaic["histogram"][changed_level(threshold) : NODATA])),
        valid_pixels=mosaic["valid_pixels"],
    )


def collection_id(job: ArchiveJob) -> str:
    """Id of the collection that all items of a version belong to."""
    return f"{job.request.output.resolve().name}-{job.version}"

"""What a person gets of each cell of an archive: products of every pair, and maps over all of them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pystac
from numpy.typing import NDArray

from dasnet.networks.methods import title_of
from flows.archive.directory import ArchiveDirectory
from flows.archive.job import ArchiveJob, Pair
from flows.archive.work import finished_pairs, set_back_pairs
from flows.inference.lost_images import looking_at
from flows.inference.product_ledger import ProductLedger
from flows.run.observer import current_observer, step
from flows.run.versions import versions
from storage.errors import IntegrityError
from storage.pages.quicklook import make_quicklooks, write_quicklook
from storage.products.cog import write_cog
from storage.products.polygons import write_changes
from storage.products.reader import strips
from storage.products.series_maps import SeriesMaps
from storage.products.stac import ItemAsset, write_item
from storage.stores.by_name import PairView
from storage.stores.run_store import NODATA, changed_level
from tiling.grid import Cell
from tiling.ledger import Ledger

T = TypeVar("T")

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
    """What came of one cell, by name of the pair; `digests`: of the pair's blocks in the cell."""

    pairs: Mapping[str, PairSummary]
    digests: Mapping[str, str]


class PairVerifier:
    """Compares each block that a product reads with the digest that its worker reported.

    A block whose bytes are others is set back, for this pair alone, and the cell ends naming it.
    """

    def __init__(
        self, job: ArchiveJob, cell: Cell, pair: Pair, ledger: Ledger, digests: Mapping[str, Mapping[str, str]]
    ) -> None:
        """`digests`: what `ledger`, the cell's, has by block and pair."""
        self._blocks, self._cell, self._pair = job.blocks, cell, pair
        self._ledger, self._digests = ledger, digests
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

    def look(self, view: PairView) -> None:
        """Read all blocks of the pair in the cell, for :meth:`conclude`."""
        for _ in strips(view, check=self):
            pass

    def conclude(self) -> None:
        """Raises IntegrityError if any block was not what the ledger says."""
        if self._wrong:
            reason = "digest of the stored block differs from the ledger's"
            set_back_pairs(self._ledger, {self._pair.name}, blocks=set(self._wrong), reason=reason)
            raise IntegrityError(
                f"{self._cell.name}, {self._pair.name}: {len(self._wrong)} blocks are not what their workers wrote "
                f"({', '.join(self._wrong[:10])}): storage lost or changed bytes. They are set back; run the same "
                "command again to compute them anew"
            )


def verify_cell(job: ArchiveJob, directory: ArchiveDirectory, cell: Cell) -> None:
    """Compare all blocks of all pairs in a cell with their digests; raises IntegrityError naming what is set back."""
    ledger = directory.cell(cell).ledger("infer")
    digests = finished_pairs(ledger)
    verifiers = [PairVerifier(job, cell, pair, ledger, digests) for pair in job.pairs]
    for pair, verifier in zip(job.pairs, verifiers, strict=True):
        verifier.look(directory.view(cell, pair))
    _conclude(verifiers)


def _conclude(verifiers: Iterable[PairVerifier]) -> None:
    """Set back what is wrong of all pairs, before the first of them ends the cell."""
    errors = []
    for verifier in verifiers:
        try:
            verifier.conclude()
        except IntegrityError as error:
            errors.append(str(error))
    if errors:
        raise IntegrityError("\n".join(errors))


@step("products", "products of {cell.name}")
def make_cell_products(job: ArchiveJob, directory: ArchiveDirectory, cell: Cell) -> CellSummary:
    """COG, polygons, quicklook and STAC item of every pair, and the two maps over all pairs; what stands is kept."""
    reporter = current_observer()
    reporter.begin("products", len(job.pairs), unit="pairs")
    ledger = directory.cell(cell).ledger("infer")
    finished = finished_pairs(ledger)
    found, digests = {}, {}
    for pair in job.pairs:
        verifier = PairVerifier(job, cell, pair, ledger, finished)
        digests[pair.name] = verifier.digest
        found[pair.name] = _make_pair(job, directory, cell, pair, verifier)
        reporter.advance()
    verifiers = [PairVerifier(job, cell, pair, ledger, finished) for pair in job.pairs]
    maps = SeriesMaps(
        views=tuple(directory.view(cell, pair) for pair in job.pairs),
        seen=tuple(pair.told.day for pair in job.pairs),
        threshold=job.bundle.threshold,
        checks=tuple(verifiers),
    )
    products = ProductLedger(directory.cell(cell), CELL_PRODUCTS)
    directory.cell(cell).ledger_directory.mkdir(parents=True, exist_ok=True)
    for name, write in (("peak", maps.write_peak), ("first", maps.write_first)):
        make = partial(_written, partial(write, conclude=partial(_conclude, verifiers)))
        parameters = {"pairs": digests, "days": [str(day) for day in maps.seen], "threshold": maps.threshold}
        products.make(name, make, parameters=parameters)
    reporter.end(f"{cell.name}: {len(job.pairs)} pairs")
    return CellSummary(pairs=found, digests=digests)


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

    def looked_at(read: Callable[[], T]) -> T:
        """Read the pair; where storage has lost something of it, find out what."""
        try:
            return read()
        except IntegrityError:
            verifier.look(view)
            verifier.conclude()
            raise

    def changes(path: Path) -> dict[str, Any]:
        return asdict(looked_at(lambda: write_changes(view, path, threshold=threshold, min_area_m2=min_area)))

    polygons = products.make("changes", changes, parameters=parameters)

    def quicklook(path: Path) -> dict[str, Any]:
        with looking_at(
            directory.stored_images(pair.images, cell.blocks),
            ingested=partial(directory.root.ledger, "ingest"),
        ):
            looks = looked_at(lambda: make_quicklooks(view, threshold=threshold))
        captions = (f"{pair.earlier.day}", f"{pair.later.day}", "change probability")
        write_quicklook(path, looks, captions=captions)
        return {}

    products.make("quicklook", quicklook, parameters=parameters)
    made = {name: products.digest(name) for name in ("probability", "changes", "quicklook")}
    parameters = {
        **parameters,
        "assets": made,
        "collection": collection_id(job),
        "times": [image.files.time.isoformat() for image in pair.images],
        "inputs": [dict(image.digest.files) for image in pair.images],
        "items": [[source.id, source.href] for image in pair.images for source in image.files.items],
        "execution": directory.executions.get(pair.name, {}),
    }
    products.make(
        "item",
        lambda path: _written(partial(_write_item, job, directory, cell, pair, products), path),
        parameters=parameters,
    )
    return PairSummary(
        polygons=polygons["count"],
        changed_m2=polygons["area_m2"],
        changed_pixels=int(sum(mosaic["histogram"][changed_level(threshold) : NODATA])),
        valid_pixels=mosaic["valid_pixels"],
    )


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
            "inputs": {str(image.day): dict(image.digest.files) for image in pair.images},
            "source_items": [source.id for image in pair.images for source in image.files.items],
            "bundle": job.version_identity["bundle"],
            "threshold": job.bundle.threshold,
            "parameters": {**job.parameters, "block": job.blocks.size},
            "execution": directory.executions.get(pair.name, {}),
        },
        software=versions(),
        made_by=title_of(job.bundle.architecture),
        collection=(collection_id(job), os.path.relpath(directory.version.path / "collection.json", path.parent)),
        derived_from=[
            source.href if "://" in source.href else os.path.relpath(source.href, path.parent)
            for image in pair.images
            for source in image.files.items
            if source.href is not None
        ],
    )


def collection_id(job: ArchiveJob) -> str:
    """Of the collection that all items of a version belong to."""
    return f"{job.request.output.resolve().name}-{job.version}"

"""From a request over an archive to a job: its dates, one grid, the pairs, the cells, and what of it is still to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box

from dasnet.bundle import Bundle, load_bundle
from flows.archive_config import ReprocessRequest
from flows.cluster import require_cluster
from flows.job import compare_resolution, plan_of, require_dtype
from flows.lost_images import StoredImage
from flows.run_directory import RunDirectory, require_alike
from flows.untrained_model import require_a_bundle
from storage.archives import DatedFiles, archive_name, read_archive
from storage.bands import select_bands
from storage.digests import DigestCache, MosaicDigest
from storage.errors import InputError
from storage.grids import (
    common_grid,
    needs_resampling,
    overlaps,
    region_geometry,
    require_similar_resolution,
)
from storage.mosaics import Mosaic
from storage.rasters import GridReader
from storage.series import ImagesByDate, PairView, ProbabilitiesByPair
from storage.store import RunStore
from tiling.grid import BlockGrid, Cell, WindowLattice, cells_of
from tiling.pairing import PairingError, pairs_of
from tiling.plan import Plan

_ALL = 0.999
"""Of an area, and a rounded pixel less."""

PAIRS_AT_ONCE = 16
"""Pairs that one task computes, because their sums fill a worker's memory. A longer series is cut into tasks that
share a date, which costs one embedding in seventeen."""


@dataclass(frozen=True, kw_only=True)
class DatedImage:
    """One date of the archive.

    Attributes:
        name: of its store: the day, and a key of its bytes and of how they are read. Another version of a file has
            another name.
    """

    name: str
    files: DatedFiles
    reader: GridReader
    digest: MosaicDigest

    @property
    def day(self) -> date:
        return self.files.day


def read_name(image: DatedImage, block: str) -> str:
    """Name of an image's block in the ingest ledger."""
    return f"{image.name}/{block}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two dates that are compared; `name` tells both days and which versions of them.

    Attributes:
        told: the date that the pair tells of: the later one, but for a pair with a later baseline the earlier one.
    """

    earlier: DatedImage
    later: DatedImage
    told: DatedImage

    @property
    def images(self) -> tuple[DatedImage, DatedImage]:
        """Both, the earlier one first."""
        return self.earlier, self.later

    @cached_property
    def name(self) -> str:
        return f"{self.earlier.day}_{self.later.day}-{_short([self.earlier.name, self.later.name], 8)}"


@dataclass(frozen=True, kw_only=True)
class ArchiveJob:
    """An archive whose dates have been found and fit together.

    Attributes:
        images: one a date, ascending, each in a pair.
        pairs: what is compared, ascending by the date that each tells of.
        left_out: days without a pixel on the grid or a partner, and why.
        resampled: names of the images that do not lie on the grid's pixels.
        cache: digests of the inputs, to be kept when the directory is this archive's.
    """

    request: ReprocessRequest
    bundle: Bundle
    grid: GeoBox
    images: tuple[DatedImage, ...]
    pairs: tuple[Pair, ...]
    left_out: Mapping[date, str]
    resampled: frozenset[str]
    plan: Plan
    warnings: tuple[str, ...]
    cache: DigestCache

    @property
    def blocks(self) -> BlockGrid:
        return self.plan.blocks

    @property
    def lattice(self) -> WindowLattice:
        return self.plan.lattice

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        return cells_of(self.blocks, max(1, self.request.cell // self.request.block))

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """What a probability depends on beside two images, the grid and the bundle."""
        return {
            "window": self.lattice.window,
            "overlap": self.lattice.overlap,
            "precision": self.request.precision,
        }

    @cached_property
    def version_identity(self) -> dict[str, Any]:
        return {
            "kind": "archive version",
            "bundle": {"name": Path(self.request.bundle).stem, "sha256": self.bundle.digest},
            "parameters": self.parameters,
        }

    @cached_property
    def version(self) -> str:
        """The bundle's name, and a key of the bundle and of the parameters."""
        facts = {"bundle": self.bundle.digest, "parameters": self.parameters}
        return f"{Path(self.request.bundle).stem}-{_short(facts, 8)}"

    @property
    def identity(self) -> dict[str, Any]:
        """What an archive directory is bound to; the dates are not, they come and go."""
        return {"kind": "archive", "asked": asked_grid(self.request), "block": self.request.block, "cell": self._cell}

    @property
    def _cell(self) -> int:
        return max(1, self.request.cell // self.request.block) * self.request.block


class ArchiveDirectory:
    """``DIR/images/`` and its ledger, and ``DIR/versions/VERSION/`` with pairs, cells and products."""

    def __init__(self, job: ArchiveJob) -> None:
        self.job = job
        self.root = RunDirectory(job.request.output)
        self.version = RunDirectory(job.request.output / "versions" / job.version)

    def image_store(self, image: DatedImage) -> RunStore:
        return RunStore(self.root.path / "images" / f"{image.name}.zarr")

    def pair_store(self, pair: Pair) -> RunStore:
        return RunStore(self.version.path / "pairs" / f"{pair.name}.zarr")

    def cell(self, cell: Cell) -> RunDirectory:
        return RunDirectory(self.version.path / "cells" / cell.name)

    def products(self, cell: Cell, pair: Pair) -> RunDirectory:
        return RunDirectory(self.cell(cell).path / pair.name)

    def view(self, cell: Cell, pair: Pair) -> PairView:
        return PairView(
            probability=self.pair_store(pair),
            images=(self.image_store(pair.earlier), self.image_store(pair.later)),
            rows=cell.box.rows,
            cols=cell.box.cols,
        )

    def stored_images(self, images: Iterable[DatedImage], blocks: Iterable[int]) -> Iterator[StoredImage]:
        """Some blocks of some dates, as the ledger of ingest calls them."""
        wanted = [self.job.blocks[index] for index in blocks]
        return (
            StoredImage(
                name=read_name(image, block.name),
                store=self.image_store(image),
                time=0,
                box=block.box,
            )
            for image in images
            for block in wanted
        )

    @property
    def executions(self) -> dict[str, dict[str, Any]]:
        """By pair: the arithmetic that all of its blocks are computed with."""
        described = self.version.describe() or {}
        # of a version that was begun when all of its pairs had to have one
        one = {pair.name: described["execution"] for pair in self.job.pairs if "execution" in described}
        return {**one, **described.get("executions", {})}

    def require_execution(
        self, pairs: Collection[str], execution: Mapping[str, Any], *, fresh: set[str]
    ) -> Mapping[str, Any]:
        """Note the arithmetic that fresh pairs are begun with; refuse to go on otherwise with others.

        Args:
            fresh: pairs without a finished block; those that are noted are taken out, being begun now.

        Returns:
            `execution`, which a worker that joins later must have as well.

        Raises:
            DifferentRunError: naming a pair and what changed.
        """
        known = self.executions
        begun = fresh & set(pairs)
        for name in set(pairs) - begun:
            require_alike(name, known.get(name, {}), execution)
        self.version.update(executions={**known, **{name: dict(execution) for name in begun}})
        fresh -= begun
        return execution

    @property
    def images(self) -> ImagesByDate:
        return ImagesByDate(stores={image.name: self.image_store(image) for image in self.job.images})

    @property
    def probabilities(self) -> ProbabilitiesByPair:
        return ProbabilitiesByPair(stores={pair.name: self.pair_store(pair) for pair in self.job.pairs})


def resolve_archive(request: ReprocessRequest) -> ArchiveJob:
    """Read the archive, open headers, find or recall the grid, digest what is new, count the cost.

    Raises:
        InputError, BundleError, ClusterError, RefusedPlanError: what cannot work, with the values that clash.
    """
    require_cluster(request.cluster)
    require_a_bundle(request.bundle, flow="reprocess")
    bundle = load_bundle(request.bundle)
    outline = _outline(request)
    found = read_archive(request.archive, asset=request.asset, start=request.start, end=request.end, outline=outline)
    opened = [(files, files.open()) for files in found]
    root = RunDirectory(request.output)
    grid = _recorded_grid(root, request) or _first_grid(opened, request)
    here = [(files, mosaic) for files, mosaic in opened if overlaps(mosaic, grid)]
    left_out = {files.day: "no pixel on the grid" for files, mosaic in opened if not overlaps(mosaic, grid)}
    wanted = [band.name for band in bundle.bands]
    cache = DigestCache(root.path / "digests.json")
    for _, mosaic in here:
        require_dtype(mosaic, bundle, request.bundle)
        require_similar_resolution(mosaic, grid)
    images = tuple(
        _image(files, mosaic, grid, select_bands(mosaic, wanted, request.bands), request, cache)
        for files, mosaic in here
    )
    try:
        pairs = tuple(
            Pair(earlier=images[pair.earlier], later=images[pair.later], told=images[pair.told])
            for pair in pairs_of([image.day for image in images], request.pairing)
        )
    except PairingError as error:
        hints = []
        if left_out:
            days = ", ".join(map(str, left_out))
            another = "choose another with --bbox or --region, or begin with another date by --start"
            hints.append(f"left out: {days} (no pixel on the grid: {another})")
        if outline is not None:
            hints.append("items that do not touch the region do not count")
        raise InputError("; ".join([f"archive {archive_name(request.archive)}: {error}", *hints])) from error
    compared = {image.name for pair in pairs for image in pair.images}
    left_out |= {
        image.day: f"in no pair by the rule {request.pairing}" for image in images if image.name not in compared
    }
    images = tuple(image for image in images if image.name in compared)
    warnings: list[str] = [f"{day}: left out, {why}" for day, why in sorted(left_out.items())]
    warnings += _not_covered(grid, request)
    compare_resolution(grid, bundle, warnings)
    # pairs of the same season share no date with their neighbours
    together = 2 * PAIRS_AT_ONCE if request.pairing == "same-season" else PAIRS_AT_ONCE + 1
    plan = replace(plan_of(request, bundle, grid, dates=len(images)), dates_at_once=min(len(images), together))
    job = ArchiveJob(
        request=request,
        bundle=bundle,
        grid=grid,
        images=images,
        pairs=pairs,
        left_out=left_out,
        resampled=frozenset(image.name for image in images if needs_resampling(image.reader.mosaic, grid)),
        plan=plan,
        warnings=tuple(warnings),
        cache=cache,
    )
    # the disk is another matter: what is there already needs no place
    plan.require(free_disk=None, memory=psutil.virtual_memory().available if request.cluster.kind == "local" else None)
    root.refuse_another(job.identity)
    return job


def _outline(request: ReprocessRequest) -> Geometry | None:
    """Where STAC items are wanted, in EPSG:4326; None = anywhere, also for a box whose CRS only the imagery tells."""
    asked = request.grid
    if asked.region is not None:
        return region_geometry(asked.region)
    if asked.bbox is None or asked.crs is None:
        return None
    return box(*asked.bbox, asked.crs).to_crs("EPSG:4326")


def asked_grid(request: ReprocessRequest) -> dict[str, Any]:
    """What the user said of the grid, the region by its content."""
    asked = request.grid.model_dump(mode="json")
    region = request.grid.region
    return {**asked, "region": None if region is None else region.read_text()}


def grid_facts(grid: GeoBox) -> dict[str, Any]:
    """A grid as JSON holds it."""
    return {"crs": str(grid.crs), "transform": list(grid.affine)[:6], "shape": list(grid.shape)}


def _recorded_grid(root: RunDirectory, request: ReprocessRequest) -> GeoBox | None:
    """The grid that was chosen when the archive directory was begun; None for a new directory."""
    known = root.describe()
    if known is None or known["identity"].get("kind") != "archive":
        return None
    if known["identity"]["asked"] != asked_grid(request):
        return None  # adopting the directory will refuse, and say what changed
    facts = known["grid"]
    return GeoBox(tuple(facts["shape"]), Affine(*facts["transform"]), CRS(facts["crs"]))


def _not_covered(grid: GeoBox, request: ReprocessRequest) -> list[str]:
    """A warning where the region asked for reaches beyond the grid."""
    asked = request.grid
    assert grid.crs is not None
    if asked.region is not None:
        wanted = region_geometry(asked.region).to_crs(grid.crs).boundingbox
    elif asked.bbox is not None:
        wanted = BoundingBox(*asked.bbox, crs=grid.crs)
    else:
        return []
    extent = grid.extent.boundingbox
    wide = min(wanted.right, extent.right) - max(wanted.left, extent.left)
    high = min(wanted.top, extent.top) - max(wanted.bottom, extent.bottom)
    share = wide * high / (wanted.span_x * wanted.span_y)
    if share > _ALL:
        return []
    return [
        f"the grid has {share:.1%} of the box around the region asked for: it ends where the dates ended that the "
        "archive had when it was begun"
    ]


def _first_grid(opened: Sequence[tuple[DatedFiles, Mosaic]], request: ReprocessRequest) -> GeoBox:
    """The first date's grid; or the one asked for, as far as any date reaches, on the pixels of the first one there."""
    asked = request.grid
    failure: InputError | None = None
    for _, mosaic in opened:
        try:
            return common_grid(
                [mosaic],
                crs=asked.crs,
                resolution=asked.resolution,
                bbox=asked.bbox,
                region=asked.region,
                covered_by=[other for _, other in opened],
            )
        except InputError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _image(
    files: DatedFiles,
    mosaic: Mosaic,
    grid: GeoBox,
    bands: tuple[int, ...],
    request: ReprocessRequest,
    cache: DigestCache,
) -> DatedImage:
    digest = cache.digest(mosaic)
    facts = {"sha256": digest.sha256, "bands": list(bands), "resampling": request.resampling}
    return DatedImage(
        name=f"{files.day}-{_short(facts, 12)}",
        files=files,
        reader=GridReader(
            mosaic=mosaic, grid=grid, bands=bands, resampling=request.resampling, region=request.grid.region
        ),
        digest=digest,
    )


def _short(facts: object, digits: int) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:digits]

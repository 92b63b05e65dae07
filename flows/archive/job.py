"""From a request over an archive to a job: its dates, one grid, the pairs, the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from flows.archive.grid import first_grid, grid_options, not_covered, outline, recorded_grid
from flows.archive.request import ReprocessRequest
from flows.cluster.layout import planned_layout
from flows.inference.model import BundleModel, bundle_model
from flows.inference.planned import PlannedSeries
from flows.inference.planning import compare_resolution, doubts_of, encoding_of, how_values_are_read, plan_of
from flows.inference.untrained_model import require_a_bundle
from flows.run.directory import RunDirectory, sha256_of_facts
from flows.run.limits import limits
from storage.archives.listing import DatedFiles, archive_name, read_archive
from storage.errors import InputError
from storage.imagery.bands import require_one_meaning, select_bands, taken_by_position
from storage.imagery.grids import needs_resampling, overlaps, require_similar_resolution, transformation_notes
from storage.imagery.identity.digests import DigestCache, MosaicDigest, counts_otherwise, former_digest
from storage.imagery.mosaics import Mosaic
from storage.imagery.rasters import GridReader
from storage.imagery.values import Encoding
from tiling.grid import Cell, cells_of
from tiling.pairing import PairingError, pairs_of

IMAGES = "images"
"""Folder of an archive's directory with a store for each date."""

PAIRS_AT_ONCE = 16
"""Pairs that one task computes, because their sums fill a worker's memory. A longer series is cut into tasks that
share a date, which costs one embedding in seventeen."""


@dataclass(frozen=True, kw_only=True)
class DatedImage:
    """One date of the archive.

    Attributes:
        name: name of its store: the day, and a key of its bytes and of how they are read. Another version of a file
            has another name.
    """

    name: str
    files: DatedFiles
    reader: GridReader
    digest: MosaicDigest

    @property
    def day(self) -> date:
        return self.files.day


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two dates that are compared; `name` tells both days and which versions of them.

    Attributes:
        reported: the date whose change the pair reports: the later one, but the earlier one where the later one is the
            baseline.
    """

    earlier: DatedImage
    later: DatedImage
    reported: DatedImage

    @property
    def images(self) -> tuple[DatedImage, DatedImage]:
        """Both, the earlier one first."""
        return self.earlier, self.later

    @cached_property
    def name(self) -> str:
        return f"{self.earlier.day}_{self.later.day}-{sha256_of_facts([self.earlier.name, self.later.name])[:8]}"


@dataclass(frozen=True, kw_only=True)
class ArchiveJob(PlannedSeries):
    """An archive whose dates fit together.

    Attributes:
        images: one a date, ascending, each in a pair.
        pairs: pairs of dates to compare, ascending by the date that each reports.
        left_out: days without a pixel on the grid or without a partner, each with the reason.
        broken: days whose files cannot be read or lack the bands, each with the reason; the next run tries them again.
        resampled: names of the images that do not lie on the grid's pixels.
        cache: digests of the inputs, to be saved when the directory is this archive's.
    """

    request: ReprocessRequest
    bundle: BundleModel
    images: tuple[DatedImage, ...]
    pairs: tuple[Pair, ...]
    left_out: Mapping[date, str]
    broken: Mapping[date, str]
    resampled: frozenset[str]
    cache: DigestCache

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        return cells_of(self.blocks, self._blocks_a_cell)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """What a probability depends on beside two images, the grid and the bundle."""
        return {
            "window": self.lattice.window,
            "overlap": self.lattice.overlap,
            **self.bundle.parameters(self.request.precision),
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
        return f"{Path(self.request.bundle).stem}-{sha256_of_facts(facts)[:8]}"

    @property
    def identity(self) -> dict[str, Any]:
        """What an archive directory is bound to; its dates are no part of it, they come and go."""
        return {
            "kind": "archive",
            "asked": grid_options(self.request),
            "block": self.request.block,
            "cell": self._blocks_a_cell * self.request.block,
        }

    @property
    def _blocks_a_cell(self) -> int:
        """Blocks along one side of a cell."""
        return max(1, self.request.cell // self.request.block)


def resolve_archive(request: ReprocessRequest) -> ArchiveJob:
    """Read the archive, open headers, find or recall the grid, digest what is new, count the cost.

    Raises:
        InputError, BundleError, ClusterError, RefusedPlanError: what cannot work, with the values that clash.
    """
    planned_layout(request.cluster)
    require_a_bundle(request.bundle, flow="reprocess")
    bundle = bundle_model(request.bundle)
    area = outline(request)
    dates = read_archive(
        request.archive,
        asset=request.asset,
        start=request.start,
        end=request.end,
        outline=area,
        date_pattern=request.date_pattern,
    )
    opened, broken = _opened(dates, request)
    root = RunDirectory(request.output)
    grid = recorded_grid(root, request) or first_grid(opened, request)
    inside = [(files, mosaic) for files, mosaic in opened if overlaps(mosaic, grid)]
    left_out = {files.day: "no pixel on the grid" for files, mosaic in opened if not overlaps(mosaic, grid)}
    cache = DigestCache(root.digests)
    warnings: list[str] = []
    for _, mosaic in inside:
        require_similar_resolution(mosaic, grid)
    inside, numbers = _with_bands(inside, bundle, request, broken)
    if request.bands is None:
        found = zip(inside, numbers, strict=True)
        words = [taken_by_position(mosaic, bundle.band_names, own) for (_, mosaic), own in found]
        if words := list(filter(None, words)):
            warnings.append(words[0] + (f" (so of {len(words)} dates)" if len(words) > 1 else ""))
    if inside and request.bands is not None:
        require_one_meaning(
            [mosaic for _, mosaic in inside],
            numbers,
            option="--bands",
            instead="leave --bands out, so that each date's are found by their names, or write them in one order",
        )
    encoding = None
    if inside:
        encoding = encoding_of(
            request,
            [(mosaic, own) for (_, mosaic), own in zip(inside, numbers, strict=True)],
            dtype=bundle.dtype,
            model=f"bundle {request.bundle}",
            expected=bundle.bands,
            warnings=warnings,
        )
    images = tuple(
        _image(files, mosaic, grid, own, encoding, request, cache)
        for (files, mosaic), own in zip(inside, numbers, strict=True)
    )
    try:
        pairs = tuple(
            Pair(earlier=images[pair.earlier], later=images[pair.later], reported=images[pair.reported])
            for pair in pairs_of([image.day for image in images], request.pairing)
        )
    except PairingError as error:
        hints = []
        if left_out:
            days = ", ".join(map(str, left_out))
            advice = "choose another with --bbox or --region, or begin with another date by --start"
            hints.append(f"left out: {days} (no pixel on the grid: {advice})")
        hints += [f"{day} cannot be read: {why}" for day, why in broken.items()]
        if area is not None:
            hints.append("items that do not touch the region do not count")
        raise InputError("; ".join([f"archive {archive_name(request.archive)}: {error}", *hints])) from error
    compared = {image.name for pair in pairs for image in pair.images}
    left_out |= {
        image.day: f"in no pair by the rule {request.pairing}" for image in images if image.name not in compared
    }
    images = tuple(image for image in images if image.name in compared)
    doubts_of((mosaic for _, mosaic in inside), warnings)
    warnings += [f"{day}: left out, {why}" for day, why in sorted(left_out.items())]
    warnings += [f"{day}: cannot be read, {why}" for day, why in sorted(broken.items())]
    warnings += not_covered(grid, request)
    warnings += transformation_notes([image.reader.mosaic for image in images], grid)
    compare_resolution(grid, bundle, warnings)
    warnings += bundle.notes
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
        broken=broken,
        resampled=frozenset(image.name for image in images if needs_resampling(image.reader.mosaic, grid)),
        plan=plan,
        warnings=tuple(warnings),
        cache=cache,
    )
    # the disk is looked at when the ledgers are read: what is computed already needs no more room
    plan.require(free_disk=None, memory=limits().free_memory if request.cluster.kind == "local" else None)
    root.refuse_another(job.identity)
    return job


def _opened(
    dates: Sequence[DatedFiles], request: ReprocessRequest
) -> tuple[list[tuple[DatedFiles, Mosaic]], dict[date, str]]:
    """The mosaics of all dates that can be read, and why others cannot.

    Raises:
        InputError: none can be read.
    """
    opened: list[tuple[DatedFiles, Mosaic]] = []
    broken: dict[date, str] = {}
    for files in dates:
        try:
            opened.append((files, files.open(request.said)))
        except InputError as error:
            broken[files.day] = str(error)
    if not opened:
        day, why = next(iter(broken.items()))
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise InputError(f"archive {archive_name(request.archive)}: no date can be read: {day}{more}: {why}")
    return opened, broken


def _with_bands(
    inside: list[tuple[DatedFiles, Mosaic]], bundle: BundleModel, request: ReprocessRequest, broken: dict[date, str]
) -> tuple[list[tuple[DatedFiles, Mosaic]], list[tuple[int, ...]]]:
    """The dates whose bands are found, with their numbers; the others are added to `broken`.

    Raises:
        InputError: no date has the bands: the first one's message.
    """
    able: list[tuple[DatedFiles, Mosaic]] = []
    numbers: list[tuple[int, ...]] = []
    unable: dict[date, InputError] = {}
    for files, mosaic in inside:
        try:
            numbers.append(select_bands(mosaic, bundle.band_names, request.bands))
            able.append((files, mosaic))
        except InputError as error:
            unable[files.day] = error
    if unable and not able:
        raise next(iter(unable.values()))
    broken |= {day: str(error) for day, error in unable.items()}
    return able, numbers


def _image(
    files: DatedFiles,
    mosaic: Mosaic,
    grid: GeoBox,
    bands: tuple[int, ...],
    encoding: Encoding | None,
    request: ReprocessRequest,
    cache: DigestCache,
) -> DatedImage:
    digest = cache.digest(mosaic)
    # a date that is read as it is stored keeps its name, whatever dates come beside it
    if encoding is not None and not encoding.changes(mosaic.dtype, [mosaic.bands[number - 1] for number in bands]):
        encoding = None

    def name(sha256: str) -> str:
        facts = {
            "sha256": sha256,
            "bands": list(bands),
            "resampling": request.resampling,
            **how_values_are_read(request, encoding),
        }
        return f"{files.day}-{sha256_of_facts(facts)[:12]}"

    names = [name(digest.sha256)]
    if counts_otherwise(mosaic):  # an archive of an earlier version has the date by every byte beside its files
        names.append(name(former_digest(mosaic, digest=cache.digest_files)))
    return DatedImage(
        name=next((known for known in names if (request.output / IMAGES / f"{known}.zarr").exists()), names[0]),
        files=files,
        reader=GridReader(
            mosaic=mosaic,
            grid=grid,
            bands=bands,
            encoding=encoding,
            resampling=request.resampling,
            region=request.grid.region,
        ),
        digest=digest,
    )

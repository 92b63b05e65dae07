"""Mosaics by their headers: what a user names is found, and all sources of one date are put together or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from math import ceil, floor
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from storage.errors import InputError, ObjectStoreError
from storage.imagery.band_names import common_name_in
from storage.imagery.dates.acquisition import UNDATED, AcquisitionDate, date_of, joint_date
from storage.imagery.description import NOTHING_SAID, Band, NamedBy, Overrides
from storage.imagery.headers.cache import NOTHING_KEPT, HeaderCache
from storage.imagery.headers.opening import open_headers, without_empty
from storage.imagery.names.spec import Stack, named_rasters
from storage.imagery.sources import Header, Source, is_remote, open_source
from storage.imagery.stacks import in_the_order_of, stack_of, stacked
from storage.longitudes import in_one_frame
from storage.reference_systems import require_place_on_earth

_FEW = 64
"""Files of a mosaic whose headers are opened again by every command, rather than kept."""

_DOUBTS_SHOWN = 4
"""Different doubts of the further files of a mosaic: more say nothing new."""


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """All rasters of one date, by their headers; nothing is held open, so it travels to workers.

    Attributes:
        label: how messages name it.
        sources: where they overlap, the first one with a valid pixel wins. All have the first's bands, in its order.
        grid: covers all sources, on the pixels of the first.
        bands: what they are; names ``band1`` … where the files say nothing.
        dtype: type of the stored values, one of :data:`storage.imagery.values.READABLE`.
        acquired: its date, and how that is known.
        facts: how the first source is stored and was processed, for a person.
        doubts: what was guessed, each with the option that settles it.
    """

    label: str
    sources: tuple[Source, ...]
    grid: GeoBox
    bands: tuple[Band, ...]
    dtype: str
    acquired: AcquisitionDate = UNDATED
    facts: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    @property
    def date(self) -> datetime | None:
        """Naive UTC; None where nothing tells it."""
        return self.acquired.time

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)


def open_mosaic(
    spec: str | Path | Sequence[str | Path], said: Overrides = NOTHING_SAID, *, kept: HeaderCache = NOTHING_KEPT
) -> Mosaic:
    """Open the headers of all that makes one mosaic.

    Args:
        spec: a raster file or GDAL/fsspec URL, a folder of rasters, a glob, a list of files (``.txt``, one a line,
            relative to the list), a VRT or tile index that is no more than one, a zip or tar file, a Zarr group, or
            a list of files. Rasters, folders, patterns and lists may lie in a bucket, ``s3://…``.
        said: what the user says of them.
        kept: headers of many files that were opened before, and where those are kept that are opened now.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    try:
        named = named_rasters(spec)
        known = kept if len(named.stacks) > _FEW else NOTHING_KEPT
        openers = [partial(_header, stack, said, known) for stack in named.stacks]
        are_remote = any(is_remote(path) for stack in named.stacks for _, path in stack)
        headers, empty = open_headers(named.label, openers, are_remote=are_remote)
    except ObjectStoreError as error:
        raise InputError(str(error)) from error
    if named.bands:
        headers = [_renamed(header, named.bands) for header in headers]
    headers = _in_one_frame(stacked(headers))
    extent = [header.source.grid for header in headers]  # an empty tile belongs to it: dates of one region have one
    mosaic = _mosaic(named.label, without_empty(headers, empty), extent)
    # a VRT or a zip file may have the date that the tiles in it lack
    if mosaic.date is None and mosaic.acquired.doubt is None:
        return replace(mosaic, acquired=date_of(named.label, {}, said.date_pattern))
    return mosaic


def _header(stack: Stack, said: Overrides, kept: HeaderCache, look: bool) -> Header:
    def header(path: str) -> Header:
        return kept.header(path, said, look=look, opened=partial(open_source, path, said, look=look))

    # side-cars are asked for by their names: to list a folder of 100,000 tiles for each of them takes longer
    listing = {} if any(is_remote(path) for _, path in stack) else {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
    with rasterio.Env(**listing):
        if len(stack) == 1:
            return header(stack[0][1])
        return stack_of([_renamed(header(path), (name,)) for name, path in stack])


def _renamed(header: Header, names: tuple[str, ...], *, named_by: NamedBy = "description") -> Header:
    """A header whose bands have the names that a list or a catalogue gives them; '' leaves a band its own."""
    if len(names) != len(header.bands):
        return header
    bands = tuple(
        replace(
            band,
            name=name,
            named_by=named_by,
            common_name=common_name_in(name, header.source.path) or band.common_name,
        )
        if name
        else band
        for band, name in zip(header.bands, names, strict=True)
    )
    return replace(header, source=replace(header.source, bands=bands))


def open_stacks(stacks: Sequence[Mapping[str, str]], said: Overrides = NOTHING_SAID) -> Mosaic:
    """Open the headers of a mosaic whose bands are rasters of their own, as STAC catalogues have them.

    Args:
        stacks: each the rasters of one place, by the name of what they hold; one that holds one band gives it that
            name, unless there is one raster alone.
        said: what the user says of them.

    Raises:
        InputError: naming the files: they are not of one grid or type, or cannot be opened.
    """
    paths = [path for stack in stacks for path in stack.values()]
    if len(paths) == len(stacks):
        return open_mosaic(paths[0] if len(paths) == 1 else paths, said)
    label = _label(paths)
    openers = [partial(_stack_of_assets, stack, said) for stack in stacks]
    headers, empty = open_headers(label, openers, are_remote=any(map(is_remote, paths)))
    headers = _in_one_frame(headers)
    return _mosaic(label, without_empty(headers, empty), [header.source.grid for header in headers])


def picture(header: Header) -> Mosaic:
    """The mosaic that one picture without georeferencing is; three bands without names are red, green, blue."""
    bands = header.bands
    if len(bands) == 3 and not any(band.is_named for band in bands):
        bands = tuple(
            replace(band, name=name, named_by="colour", common_name=name)
            for band, name in zip(bands, ("red", "green", "blue"), strict=True)
        )
    source = replace(header.source, bands=bands)
    return Mosaic(
        label=source.path,
        sources=(source,),
        grid=source.grid,
        bands=bands,
        dtype=header.dtype,
        facts=header.facts,
        doubts=header.doubts,
    )


def _stack_of_assets(stack: Mapping[str, str], said: Overrides, look: bool) -> Header:
    return stack_of(
        [_renamed(open_source(path, said, look=look), (name,), named_by="asset") for name, path in stack.items()]
    )


def _mosaic(label: str, headers: Sequence[Header], extent: Sequence[GeoBox]) -> Mosaic:
    first = headers[0]
    sources = [first.source]
    doubts = list(first.doubts)
    for other in headers[1:]:
        # two CRSs make one mosaic, as on the border of two UTM zones: each file is brought to the grid by itself
        if first.dtype != other.dtype:
            raise InputError(
                f"{label}: its files do not make one mosaic: {first.source.path} has type {first.dtype}, "
                f"{other.source.path} has {other.dtype}"
            )
        sources.append(in_the_order_of(first.source, other.source, label))
    doubts += [doubt for header in headers[1:] for doubt in header.doubts if doubt not in doubts][:_DOUBTS_SHOWN]
    return Mosaic(
        label=label,
        sources=tuple(sources),
        grid=_union(extent),
        bands=first.bands,
        dtype=first.dtype,
        acquired=joint_date((header.source.path, header.acquired) for header in headers),
        facts={**first.facts, **({"files": f"{len(headers):,}"} if len(headers) > 1 else {})},
        doubts=tuple(doubts),
    )


def _label(paths: Sequence[str]) -> str:
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _in_one_frame(headers: Sequence[Header]) -> list[Header]:
    """Headers of tiles on both sides of 180° as neighbours."""
    grids = in_one_frame([header.source.grid for header in headers])
    return [
        header if header.source.grid is grid else replace(header, source=replace(header.source, grid=grid))
        for header, grid in zip(headers, grids, strict=True)
    ]


def _union(grids: Sequence[GeoBox]) -> GeoBox:
    """The smallest grid on the first one's pixels that covers all of them."""
    first = grids[0]
    if len(grids) == 1:
        return first
    assert first.crs is not None
    for grid in grids:
        if grid.crs != first.crs:
            require_place_on_earth(grid, "one of its files")
    boxes = np.array([_box_in(grid, first.crs) for grid in grids])
    x, y = ~first.affine * (boxes[:, [0, 2]].T, boxes[:, [1, 3]].T)
    x0, y0 = floor(np.min(x) + 1e-3), floor(np.min(y) + 1e-3)
    x1, y1 = ceil(np.max(x) - 1e-3), ceil(np.max(y) - 1e-3)
    return GeoBox((y1 - y0, x1 - x0), first.affine * Affine.translation(x0, y0), first.crs)


def _box_in(grid: GeoBox, crs: CRS) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of a north-up grid in a CRS."""
    if grid.crs != crs:
        box = grid.footprint(crs).boundingbox
        return box.left, box.bottom, box.right, box.top
    left, top = grid.affine.c, grid.affine.f
    return left, top + grid.affine.e * grid.height, left + grid.affine.a * grid.width, top

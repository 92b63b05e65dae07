"""Rasters of one place whose bands are files of their own, and tiles whose bands stand in another order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from odc.geo.geobox import GeoBox

from storage.errors import InputError
from storage.imagery.dates.acquisition import joint_date
from storage.imagery.description import band_words
from storage.imagery.sources import Header, Source


def stacked(headers: Sequence[Header]) -> list[Header]:
    """Files of one band each that lie on one grid as one source of several bands; all others as they are.

    A folder with one file a band is what satellites' products are delivered as. Such files are told by their names
    (B02, red); the bands of a place are ordered as those of the first place.

    Raises:
        InputError: files of one band on one grid whose names do not say which band they are, or places with other
            bands; naming them.
    """
    places: dict[tuple[object, ...], list[Header]] = defaultdict(list)
    for header in headers:
        single = len(header.bands) == 1 and not header.source.parts
        places[(_grid_words(header.source.grid), header.acquired.time) if single else (id(header),)].append(header)
    if all(len(members) == 1 for members in places.values()):
        return list(headers)
    stacks: list[Header] = []
    left_out: list[str] = []
    order: tuple[str, ...] = ()
    for members in places.values():
        if len(members) == 1:
            stacks.append(members[0])
            continue
        named = [header for header in members if header.bands[0].is_named]
        beside = [header.source.path for header in members if not header.bands[0].is_named] if len(named) > 1 else []
        members = named if beside else members
        names = [header.bands[0].name for header in members]
        if not all(header.bands[0].is_named for header in members) or len(set(names)) < len(names):
            paths = ", ".join(header.source.path for header in members[:4])
            raise InputError(
                f"{len(members)} files of one band lie on one grid ({paths}{' …' if len(members) > 4 else ''}), and "
                "their names do not tell whether they are bands (B02, red, …) or copies: give one of them, or one "
                "file with all bands"
            )
        left_out += beside
        order = order or tuple(sorted(names))
        if set(order) != set(names):
            raise InputError(
                f"{Path(members[0].source.path).parent} has bands {', '.join(sorted(names))} where another place has "
                f"{', '.join(sorted(order))}: all places of one mosaic need the same bands on "
                "one grid: give a list of the files to use"
            )
        stacks.append(stack_of(sorted(members, key=lambda header: order.index(header.bands[0].name))))
    if left_out:
        shown = ", ".join(Path(path).name for path in left_out[:4]) + (" …" if len(left_out) > 4 else "")
        word = f"{shown}: no bands by their names, as quality masks are none, and left out; a list of files settles it"
        stacks[0] = replace(stacks[0], doubts=(*stacks[0].doubts, word))
    return stacks


def stack_of(headers: Sequence[Header]) -> Header:
    """One source whose bands are those of several rasters on one grid.

    Raises:
        InputError: their grids or types differ.
    """
    first = headers[0]
    for other in headers[1:]:
        for what, mine, theirs in (
            ("grid", _grid_words(first.source.grid), _grid_words(other.source.grid)),
            ("type", first.dtype, other.dtype),
        ):
            if mine != theirs:
                raise InputError(
                    f"bands of one image must lie on one grid: {first.source.path} has {what} {mine}, "
                    f"{other.source.path} has {theirs}"
                )
    bands = tuple(band for header in headers for band in header.bands)
    parts = tuple(header.source for header in headers)
    return Header(
        source=Source(
            path=first.source.path,
            grid=first.source.grid,
            files=tuple(file for part in parts for file in part.files),
            driver="stack",
            image_bands=tuple(range(1, len(bands) + 1)),
            bands=bands,
            parts=parts,
        ),
        dtype=first.dtype,
        acquired=joint_date((header.source.path, header.acquired) for header in headers),
        facts={**first.facts, "bands in files": str(len(parts))},
        doubts=tuple(dict.fromkeys(doubt for header in headers for doubt in header.doubts)),
    )


def in_the_order_of(first: Source, other: Source, label: str) -> Source:
    """A further source of a mosaic, with its bands in the order of the first's.

    Raises:
        InputError: it has other bands.
    """
    if len(first.bands) != len(other.bands):
        raise InputError(
            f"{label}: its files do not make one mosaic: {first.path} has {len(first.bands)} bands "
            f"({band_words(first.bands)}), {other.path} has {len(other.bands)} ({band_words(other.bands)})"
        )
    for one, another in ((first, other), (other, first)):
        if one.bands[0].named_by == "file" and not another.bands[0].is_named:
            raise InputError(
                f"{label}: its files do not make one mosaic: {one.path} is {one.bands[0].name} by its name, and what "
                f"{another.path} is its name does not tell: give a list of the files to use"
            )
    for key in ("name", "common_name"):
        mine, theirs = ([getattr(band, key) for band in source.bands] for source in (first, other))
        if mine == theirs:
            return other
        if None not in mine and len(set(mine)) == len(mine) and sorted(mine) == sorted(map(str, theirs)):
            return _reordered(other, [theirs.index(name) for name in mine])
    if any(
        one.common_name and another.common_name and one.common_name != another.common_name
        for one, another in zip(first.bands, other.bands, strict=True)
    ):
        raise InputError(
            f"{label}: its files do not make one mosaic: {first.path} has bands {band_words(first.bands)}, "
            f"{other.path} {band_words(other.bands)}"
        )
    return other


def _reordered(source: Source, order: Sequence[int]) -> Source:
    if source.parts and any(len(part.bands) > 1 for part in source.parts):
        raise InputError(f"{source.path} and its neighbours hold the bands in another order: write them in one order")
    rule = source.validity
    return replace(
        source,
        bands=tuple(source.bands[index] for index in order),
        image_bands=tuple(source.image_bands[index] for index in order),
        validity=None if rule is None else replace(rule, nodata=tuple(rule.nodata[index] for index in order)),
        parts=tuple(source.parts[index] for index in order) if source.parts else (),
    )


def _grid_words(grid: GeoBox) -> str:
    corner = f"{grid.affine.c:.9g}, {grid.affine.f:.9g}"
    return f"{grid.width} × {grid.height} px of {grid.resolution.x:g} at {corner} in {grid.crs}"

"""Mosaics by their headers: what a user names is found, and all sources of one date are put together or refused."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import ceil, floor
from pathlib import Path

from affine import Affine
from odc.geo.geobox import GeoBox

from storage.errors import InputError, ObjectStoreError
from storage.imagery.band_names import common_name_in
from storage.imagery.dates import UNDATED, AcquisitionDate, joint_date
from storage.imagery.description import NOTHING_SAID, Band, Overrides
from storage.imagery.sources import RASTER_SUFFIXES, Header, Source, is_remote, is_zarr, open_source
from storage.imagery.stacks import in_the_order_of, stack_of, stacked
from storage.places.bucket import SCHEME, ObjectPath
from storage.places.client import FIRST_CONTACT
from storage.places.credentials import refuse_credentials

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

    def without_palette(self) -> Mosaic:
        """The same with the numbers of a palette's colours instead of the colours, as a label has them."""
        if not any(source.palette for source in self.sources):
            return self
        sources = tuple(replace(source, palette=(), bands=source.bands[:1]) for source in self.sources)
        return replace(self, sources=sources, bands=sources[0].bands)


def open_mosaic(spec: str | Path | Sequence[str | Path], said: Overrides = NOTHING_SAID) -> Mosaic:
    """Open the headers of all that makes one mosaic.

    Args:
        spec: a raster file or GDAL/fsspec URL, a folder of rasters, a glob, a ``.txt`` list of files (one a line,
            relative to the list), a Zarr group, or a list of files. All of them may lie in a bucket, ``s3://…``.
        said: what the user says of them.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    try:
        label, paths = _expand(spec)
        return _mosaic(label, stacked(_opened(paths, said)))
    except ObjectStoreError as error:
        raise InputError(str(error)) from error


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
    return _mosaic(_label(paths), [_stack_of_assets(stack, said) for stack in stacks])


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


def _opened(paths: Sequence[str], said: Overrides) -> list[Header]:
    return [open_source(path, said) for path in paths]


def _stack_of_assets(stack: Mapping[str, str], said: Overrides) -> Header:
    headers = {name: open_source(path, said) for name, path in stack.items()}
    renamed = [
        replace(
            header.bands[0],
            name=name,
            named_by="asset",
            common_name=common_name_in(name, header.source.path) or header.bands[0].common_name,
        )
        if len(header.bands) == 1
        else None
        for name, header in headers.items()
    ]
    return stack_of(
        [
            replace(header, source=replace(header.source, bands=(band,))) if band is not None else header
            for header, band in zip(headers.values(), renamed, strict=True)
        ]
    )


def _mosaic(label: str, headers: Sequence[Header]) -> Mosaic:
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
        grid=_union([header.source.grid for header in headers]),
        bands=first.bands,
        dtype=first.dtype,
        acquired=joint_date((header.source.path, header.acquired) for header in headers),
        facts={**first.facts, **({"files": f"{len(headers):,}"} if len(headers) > 1 else {})},
        doubts=tuple(doubts),
    )


def _expand(spec: str | Path | Sequence[str | Path]) -> tuple[str, list[str]]:
    if not isinstance(spec, str | Path):
        if not spec:
            raise InputError("a mosaic needs at least one file, the list is empty")
        return _label([str(path) for path in spec]), [str(path) for path in spec]
    text = refuse_credentials(str(spec))
    if text.startswith(SCHEME):
        return text, objects_named(ObjectPath.parse(text))
    if is_remote(text) or is_zarr(text):
        return text, [text]
    path = Path(text)
    if path.is_dir():
        paths = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in RASTER_SUFFIXES)
        if not paths:
            raise InputError(f"{text} is a folder without rasters ({', '.join(RASTER_SUFFIXES)})")
        return text, paths
    if path.suffix.lower() == ".txt" and path.is_file():
        paths = list(_listed(path.read_text(), path.parent))
        if not paths:
            raise InputError(f"{text} lists no file")
        return text, paths
    if not path.exists() and glob.has_magic(text):
        paths = sorted(glob.glob(text, recursive=True))  # noqa: PTH207  the pattern may be absolute
        if not paths:
            raise InputError(f"no file matches {text}")
        return text, paths
    return text, [text]


def _label(paths: Sequence[str]) -> str:
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def objects_named(path: ObjectPath) -> list[str]:
    """Addresses of the rasters that a name in a bucket stands for: an object, a list, a pattern, a prefix.

    Raises:
        InputError: there are none.
        ObjectStoreError: the store denies it, or does not answer.
    """
    if path.suffix.lower() != ".txt" and path.facts(patience=FIRST_CONTACT) is not None:
        return [str(path)]
    path.parent.require_answer()
    if is_zarr(str(path)):
        return [str(path)]
    if path.suffix.lower() == ".txt":
        return list(_listed(path.read_text(), path.parent))
    if glob.has_magic(path.key):
        root = path.parent
        while glob.has_magic(root.key):
            root = root.parent
        paths = [str(entry) for entry, _ in root.walk() if fnmatch.fnmatchcase(entry.key, path.key)]
        if not paths:
            raise InputError(f"no object matches {path}")
        return sorted(paths)
    paths = sorted(str(entry) for entry in path.iterdir() if entry.suffix.lower() in RASTER_SUFFIXES)
    if not paths:
        raise InputError(f"{path} does not exist, and there are no rasters below it ({', '.join(RASTER_SUFFIXES)})")
    return paths


def _listed(text: str, folder: Path | ObjectPath) -> Iterable[str]:
    lines = (line.strip() for line in text.splitlines())
    return (line if is_remote(line) else str(folder / line) for line in lines if line and line[0] != "#")


def _union(grids: Sequence[GeoBox]) -> GeoBox:
    """The smallest grid on the first one's pixels that covers all of them."""
    first = grids[0]
    if len(grids) == 1:
        return first
    assert first.crs is not None
    to_pixels = ~first.affine
    boxes = [(g.extent if g.crs == first.crs else g.footprint(first.crs)).boundingbox for g in grids]
    corners = [to_pixels * (x, y) for box in boxes for x, y in ((box.left, box.top), (box.right, box.bottom))]
    x0, y0 = floor(min(x for x, _ in corners) + 1e-3), floor(min(y for _, y in corners) + 1e-3)
    x1, y1 = ceil(max(x for x, _ in corners) - 1e-3), ceil(max(y for _, y in corners) - 1e-3)
    return GeoBox((y1 - y0, x1 - x0), first.affine * Affine.translation(x0, y0), first.crs)

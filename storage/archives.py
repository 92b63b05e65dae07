"""Archives of dated imagery: a STAC catalogue, a table, a folder or a list of rasters, to the files of each date.

Nothing but headers and metadata is read here. What an archive may be:

``catalog.json``, ``collection.json``   a static STAC catalogue with all that hangs below it (file or URL)
``items.json``                          a STAC item collection (GeoJSON FeatureCollection of items)
``archive.csv``                         a table with the columns ``date`` and ``path``; rows of one date are one mosaic
folder, glob or list of rasters         dates from the headers or the names; rasters of one day make one mosaic
"""

from __future__ import annotations

import csv
import glob
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import urlparse

import pystac
from odc.geo.geom import Geometry

from storage.errors import InputError
from storage.mosaics import Mosaic, open_mosaic, open_stacks
from storage.sources import RASTER_SUFFIXES

_RASTER_TYPES = ("image/tiff", "image/jp2", "application/x-geotiff", "image/vnd.stac.geotiff")


Stack = tuple[tuple[str, str], ...]
"""(name, path) of the rasters of one place."""


@dataclass(frozen=True, kw_only=True)
class SourceItem:
    """A STAC item that imagery came from: its id, and where it stands (None for an item that has no address)."""

    id: str
    href: str | None


@dataclass(frozen=True, kw_only=True)
class DatedFiles:
    """All rasters of one day.

    Attributes:
        day: in UTC.
        time: naive UTC; the earliest of the day's rasters.
        stacks: the rasters of each place, in a fixed order; those of one place hold the bands of one image, each with
            a name for what it holds.
        items: the STAC items they came from; empty for other archives.
    """

    day: date
    time: datetime
    stacks: tuple[Stack, ...]
    items: tuple[SourceItem, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(path for stack in self.stacks for _, path in stack)

    def open(self) -> Mosaic:
        """Open the headers of the day's mosaic; raises InputError as :func:`open_stacks`."""
        return replace(open_stacks([dict(stack) for stack in self.stacks]), date=self.time)


def read_archive(
    source: str | Path | Sequence[str],
    *,
    asset: str | None = None,
    start: date | None = None,
    end: date | None = None,
    outline: Geometry | None = None,
) -> tuple[DatedFiles, ...]:
    """The dates of an archive, ascending.

    Args:
        source: see this module.
        asset: key of the STAC asset that holds the imagery, or, with commas between them, keys of the assets that hold
            its bands, each lying on the same grid; None = the only raster asset with the role ``data`` or, failing
            that, without the role of a thumbnail or an overview.
        start, end: first and last day wanted, both included.
        outline: in EPSG:4326; STAC items that do not touch it are left out.

    Raises:
        InputError: not an archive, a date or an asset that is missing, or no date left; the message names them.
    """
    if start is not None and end is not None and start > end:
        raise InputError(f"the first day wanted, {start}, is after the last one, {end}")
    found = list(_entries(source, asset, outline))
    kept = [entry for entry in found if (start is None or entry.day >= start) and (end is None or entry.day <= end)]
    if not kept:
        span = f", between {start or 'the first'} and {end or 'the last'}" if start or end else ""
        days = sorted({entry.day for entry in found})
        has = f"its dates are {', '.join(map(str, days))}" if days else "it holds no imagery there"
        raise InputError(f"archive {archive_name(source)} has no date left{span}: {has}")
    return tuple(_by_day(kept))


def archive_name(source: str | Path | Sequence[str]) -> str:
    """How messages name an archive."""
    return str(source) if isinstance(source, str | Path) else f"of {len(source)} files"


def _entries(source: str | Path | Sequence[str], asset: str | None, outline: Geometry | None) -> Iterable[DatedFiles]:
    if not isinstance(source, str | Path):
        return _from_rasters([str(path) for path in source], "the list")
    text = str(source)
    if urlparse(text).path.lower().endswith((".json", ".geojson")):
        return _from_stac(text, asset, outline)
    if text.lower().endswith(".csv"):
        return _from_table(Path(text))
    path = Path(text)
    if path.is_dir():
        rasters = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in RASTER_SUFFIXES)
        return _from_rasters(rasters, f"folder {text}")
    if glob.has_magic(text):
        return _from_rasters(sorted(glob.glob(text, recursive=True)), f"pattern {text}")  # noqa: PTH207  may be absolute
    raise InputError(
        f"archive {text} is no STAC file (.json), table (.csv), folder or pattern of rasters"
        + ("" if path.exists() else ": it does not exist")
    )


def _from_rasters(paths: Sequence[str], where: str) -> Iterable[DatedFiles]:
    if not paths:
        raise InputError(f"{where} holds no raster ({', '.join(RASTER_SUFFIXES)})")
    for path in paths:
        time = open_mosaic(path).date
        if time is None:
            raise InputError(
                f"{path} tells no date, in its header or its name (…YYYYMMDD…): give a table (.csv) with date and path"
            )
        yield DatedFiles(day=time.date(), time=time, stacks=((("", path),),))


def _from_table(path: Path) -> Iterable[DatedFiles]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"date", "path"} <= set(reader.fieldnames or ()):
                raise InputError(f"table {path} needs the columns date and path; it has {reader.fieldnames}")
            rows = list(enumerate(reader, start=2))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"table {path} cannot be read: {error}") from error
    for line, row in rows:
        given, file_name = (row["date"] or "").strip(), (row["path"] or "").strip()
        try:
            time = _naive(datetime.fromisoformat(given))
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {given!r} is no date (YYYY-MM-DD)") from error
        if not file_name:
            raise InputError(f"{path}, line {line}: no path")
        place = file_name if "://" in file_name or file_name.startswith("/vsi") else str(path.parent / file_name)
        yield DatedFiles(day=time.date(), time=time, stacks=((("", place),),))


def _from_stac(href: str, asset: str | None, outline: Geometry | None) -> Iterable[DatedFiles]:
    for item in _items(href):
        if outline is not None and item.geometry is not None:
            try:
                touches = Geometry(item.geometry, "EPSG:4326").intersects(outline)
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(f"STAC item {item.id} in {href} has a geometry that is none: {error}") from error
            if not touches:
                continue
        time = item.datetime or item.common_metadata.start_datetime
        if time is None:
            raise InputError(f"STAC item {item.id} in {href} has no date")
        time = _naive(time)
        yield DatedFiles(
            day=time.date(),
            time=time,
            stacks=(_stack(item, asset, href),),
            items=(SourceItem(id=item.id, href=item.get_self_href()),),
        )


def _items(href: str) -> Iterable[pystac.Item]:
    """All items below a STAC file.

    Raises:
        InputError: it or something below it cannot be read, or is not STAC.
    """
    try:
        content: Mapping[str, object] = json.loads(pystac.StacIO.default().read_text(href))
        if content.get("type") == "FeatureCollection":
            collection = pystac.ItemCollection.from_dict(dict(content))
            for item in collection:
                if item.get_self_href() is None:  # relative assets of an item without an address are beside the file
                    item.set_self_href(href)
                    item.make_asset_hrefs_absolute()
                    item.set_self_href(None)
                yield item
            return
        if content.get("type") == "Feature":
            yield pystac.Item.from_file(href)
            return
        root = pystac.read_file(href)
        assert isinstance(root, pystac.Catalog)
        yield from root.get_items(recursive=True)
    except Exception as error:  # pystac's and urllib3's come in many types, a bare Exception among them
        raise InputError(f"{href} cannot be read as STAC: {type(error).__name__}: {error}") from error


def _stack(item: pystac.Item, keys: str | None, href: str) -> Stack:
    if keys is None:
        rasters = {name: found for name, found in item.assets.items() if _is_raster(found)}
        data = {name: found for name, found in rasters.items() if "data" in (found.roles or ())} or rasters
        if len(data) != 1:
            raise InputError(
                f"STAC item {item.id} in {href} has {len(data)} raster assets ({', '.join(sorted(data)) or 'none'}): "
                "say with --asset which one holds the imagery, or which ones its bands (--asset red,green,blue)"
            )
        wanted = list(data)
    else:
        wanted = [key.strip() for key in keys.split(",")]
        missing = [key for key in wanted if key not in item.assets]
        if missing:
            raise InputError(
                f"STAC item {item.id} in {href} has no asset {', '.join(map(repr, missing))}; it has "
                f"{', '.join(sorted(item.assets)) or 'none'}"
            )
    return tuple((key, _path(item, item.assets[key], href)) for key in wanted)


def _path(item: pystac.Item, asset: pystac.Asset, href: str) -> str:
    path = asset.get_absolute_href()
    if path is None:
        raise InputError(f"STAC item {item.id} in {href}: asset {asset.href} is relative to nothing")
    return path.removeprefix("file://")


def _is_raster(asset: pystac.Asset) -> bool:
    if set(asset.roles or ()) & {"thumbnail", "overview", "metadata"}:
        return False
    kind = (asset.media_type or "").lower()
    return kind.startswith(_RASTER_TYPES) or (not kind and asset.href.lower().endswith(RASTER_SUFFIXES))


def _by_day(entries: Iterable[DatedFiles]) -> Iterable[DatedFiles]:
    days: dict[date, list[DatedFiles]] = defaultdict(list)
    for entry in entries:
        days[entry.day].append(entry)
    for day, found in sorted(days.items()):
        ordered = sorted(found, key=lambda entry: entry.stacks)
        yield DatedFiles(
            day=day,
            time=min(entry.time for entry in ordered),
            stacks=tuple(dict.fromkeys(stack for entry in ordered for stack in entry.stacks)),
            items=tuple(dict.fromkeys(item for entry in ordered for item in entry.items)),
        )


def _naive(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time

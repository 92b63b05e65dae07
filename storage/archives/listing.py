"""Archives of dated imagery: a STAC catalogue, a table, a folder or a list of rasters, to the files of each date.

Nothing but headers and metadata is read here. What an archive may be:

``catalog.json``, ``collection.json``   a static STAC catalogue with all that hangs below it (file or URL)
``items.json``                          a STAC item collection (GeoJSON FeatureCollection of items)
``items.parquet``                       STAC items in a GeoParquet file (stac-geoparquet)
``archive.csv``                         a table with the columns ``date`` and ``path``; rows of one date are one mosaic
folder, glob, tile index or list        dates from the headers or the names; rasters of one day make one mosaic

Any of them, and the rasters that they name, may lie in a bucket, ``s3://…``.
"""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from urllib.parse import urlparse

from odc.geo.geom import Geometry

from storage.archives.stac import MissingFileError, SourceItem, Stack, read_images
from storage.errors import InputError, ObjectStoreError
from storage.imagery.dates.acquisition import date_in_name, is_future, listed_date, naive_utc
from storage.imagery.description import NOTHING_SAID, Overrides
from storage.imagery.mosaics import Mosaic, open_mosaic, open_stacks
from storage.imagery.names.indexes import PARQUET_SUFFIXES, holds_items, is_index
from storage.imagery.names.local import name_beside
from storage.imagery.names.spec import matching_paths, named_rasters, objects_named, rasters_in_folder
from storage.imagery.names.text_lists import LIST_SUFFIXES, table_rows
from storage.imagery.sources import RASTER_SUFFIXES
from storage.places.bucket import SCHEME, Location, ObjectPath, location


@dataclass(frozen=True, kw_only=True)
class DatedFiles:
    """All rasters of one day.

    Attributes:
        day: in UTC.
        time: naive UTC; the earliest of the day's rasters.
        stacks: the rasters of each place, in a fixed order; those of one place hold the bands of one image, each with
            a name for what it holds.
        items: the STAC items they came from; empty for other archives.
        missing: why the day cannot be opened, where files of it are not there; empty = nothing is missing.
    """

    day: date
    time: datetime
    stacks: tuple[Stack, ...]
    items: tuple[SourceItem, ...] = ()
    missing: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(path for stack in self.stacks for _, path in stack)

    def open(self, said: Overrides = NOTHING_SAID) -> Mosaic:
        """Open the headers of the day's mosaic; raises InputError as :func:`open_stacks`, and for what is missing."""
        if self.missing:
            raise InputError(self.missing)
        return replace(open_stacks([dict(stack) for stack in self.stacks], said), acquired=listed_date(self.time))


def read_archive(
    source: str | Path | Sequence[str],
    *,
    asset: str | None = None,
    start: date | None = None,
    end: date | None = None,
    outline: Geometry | None = None,
    date_pattern: str | None = None,
) -> tuple[DatedFiles, ...]:
    """The dates of an archive, ascending.

    Args:
        source: see this module.
        asset: key of the STAC asset that holds the imagery, or, with commas between them, keys of the assets that hold
            its bands, each lying on the same grid; None = the only raster asset with the role ``data`` or, failing
            that, without the role of a thumbnail or an overview.
        start, end: first and last day wanted, both included.
        outline: in EPSG:4326; STAC items that do not touch it are left out.
        date_pattern: where the date stands in the names of rasters, as :mod:`storage.imagery.dates.patterns` has it;
            None = it is looked for. Catalogues and tables have dates of their own.

    Raises:
        InputError: not an archive, a date or an asset that is missing, or no date left; the message names them.
    """
    if start is not None and end is not None and start > end:
        raise InputError(f"the first day wanted, {start}, is after the last one, {end}")

    def is_wanted(day: date) -> bool:
        return (start is None or day >= start) and (end is None or day <= end)

    try:
        entries = list(_entries(source, asset, outline, is_wanted, date_pattern))
    except ObjectStoreError as error:
        raise InputError(str(error)) from error
    in_time = [entry for entry in entries if is_wanted(entry.day)]
    if not in_time:
        span = f", between {start or 'the first'} and {end or 'the last'}" if start or end else ""
        days = sorted({entry.day for entry in entries})
        has = f"its dates are {', '.join(map(str, days))}" if days else "it holds no imagery there"
        raise InputError(f"archive {archive_name(source)} has no date left{span}: {has}")
    return tuple(_by_day(in_time))


def archive_name(source: str | Path | Sequence[str]) -> str:
    """How messages name an archive."""
    return str(source) if isinstance(source, str | Path) else f"of {len(source)} files"


def _entries(
    source: str | Path | Sequence[str],
    asset: str | None,
    outline: Geometry | None,
    is_wanted: Callable[[date], bool],
    date_pattern: str | None,
) -> Iterable[DatedFiles]:
    """Files of all dates; of dates that are not wanted what is wrong is nobody's trouble."""
    if not isinstance(source, str | Path):
        return _from_rasters([str(path) for path in source], "the list", is_wanted, date_pattern)
    text = str(source)
    if text.startswith(SCHEME):
        ObjectPath.parse(text).parent.require_answer()
    if urlparse(text).path.lower().endswith((".json", ".geojson")):
        return _from_stac(text, asset, outline, is_wanted)
    if text.lower().endswith(".csv"):
        return _from_table(location(text))
    if text.startswith(SCHEME):
        return _from_rasters(objects_named(ObjectPath.parse(text)), text, is_wanted, date_pattern)
    path = Path(text)
    if path.is_dir():
        return _from_rasters(rasters_in_folder(path), f"folder {text}", is_wanted, date_pattern)
    if path.is_file() and text.lower().endswith(PARQUET_SUFFIXES) and holds_items(text):
        return _from_stac(text, asset, outline, is_wanted)
    if path.is_file() and (path.suffix.lower() in LIST_SUFFIXES or is_index(text)):
        paths = [name for stack in named_rasters(text).stacks for _, name in stack]
        return _from_rasters(paths, f"list {text}", is_wanted, date_pattern)
    if not path.exists() and glob.has_magic(text):
        return _from_rasters(matching_paths(text), f"pattern {text}", is_wanted, date_pattern)
    raise InputError(
        f"archive {text} is no STAC file (.json, .parquet), table (.csv), list (.txt), tile index, folder or pattern "
        "of rasters" + ("" if path.exists() else ": it does not exist")
    )


def _from_rasters(
    paths: Sequence[str], where: str, is_wanted: Callable[[date], bool], date_pattern: str | None
) -> Iterable[DatedFiles]:
    if not paths:
        raise InputError(f"{where} holds no raster ({', '.join(RASTER_SUFFIXES)})")
    for path in paths:
        try:
            acquired = open_mosaic(path, Overrides(date_pattern=date_pattern)).acquired
        except InputError:
            # a date that is known by its name is opened again later, and is then one that cannot be read
            acquired = date_in_name(path, date_pattern)
            if acquired.time is None or not acquired.is_certain:
                raise
        time = acquired.time
        if time is None or not acquired.is_certain:
            what = f"no certain date: {acquired.doubt}" if acquired.doubt else "no date, in its header or its name"
            raise InputError(
                f"{path} tells {what}; say with --date-pattern where it stands in the names (now …YYYYMMDD…), or give "
                "a table (.csv) with date and path"
            )
        yield DatedFiles(day=time.date(), time=time, stacks=((("", path),),))


def _from_table(path: Location) -> Iterable[DatedFiles]:
    try:
        rows = table_rows(path.read_bytes(), path=f"table {path}")
    except OSError as error:
        raise InputError(f"table {path} cannot be read: {error}") from error
    head = [cell.lower() for cell in rows[0][1]] if rows else []
    if not {"date", "path"} <= set(head):
        raise InputError(f"table {path} needs the columns date and path; it has {', '.join(head) or 'none'}")
    for line, cells in rows[1:]:
        if any(cells[len(head) :]):
            raise InputError(
                f"{path}, line {line}: {len(cells)} cells, the head has {len(head)}: put quotes around a path with a "
                "comma in it"
            )
        row = dict(zip(head, [*cells, *[""] * len(head)], strict=False))
        day, file_name = row["date"], row["path"]
        try:
            time = naive_utc(datetime.fromisoformat(day))
        except ValueError as error:
            raise InputError(f"{path}, line {line}: {day!r} is no date (YYYY-MM-DD)") from error
        if is_future(time):
            raise InputError(f"{path}, line {line}: {day} lies in the future")
        if not file_name:
            raise InputError(f"{path}, line {line}: no path")
        yield DatedFiles(day=time.date(), time=time, stacks=((("", name_beside(path.parent, file_name)),),))


def _from_stac(
    href: str, asset: str | None, outline: Geometry | None, is_wanted: Callable[[date], bool]
) -> Iterable[DatedFiles]:
    for image in read_images(href, outline=outline):
        stacks: tuple[Stack, ...] = ()
        missing = ""
        try:
            stacks = (image.stack(asset),) if is_wanted(image.time.date()) else ()
        except MissingFileError as error:
            missing = str(error)
        yield DatedFiles(day=image.time.date(), time=image.time, stacks=stacks, items=(image.item,), missing=missing)


def _by_day(entries: Iterable[DatedFiles]) -> Iterable[DatedFiles]:
    days: dict[date, list[DatedFiles]] = defaultdict(list)
    for entry in entries:
        days[entry.day].append(entry)
    for day, entries_of_day in sorted(days.items()):
        ordered = sorted(entries_of_day, key=lambda entry: entry.stacks)
        yield DatedFiles(
            day=day,
            time=min(entry.time for entry in ordered),
            stacks=tuple(dict.fromkeys(stack for entry in ordered for stack in entry.stacks)),
            items=tuple(dict.fromkeys(item for entry in ordered for item in entry.items)),
            missing=next((entry.missing for entry in ordered if entry.missing), ""),
        )

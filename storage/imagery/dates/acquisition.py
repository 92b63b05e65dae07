"""The date of acquisition of a mosaic: read from its header, its name or its folder, or told by the user's pattern.

Nothing is guessed: a name that can be read in two ways has no date, and a doubt that says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from storage.imagery.dates.candidates import DateCandidate, is_future, read_dates
from storage.imagery.dates.patterns import DatePattern

Origin = Literal["header", "name", "folder", "pattern", "archive"]


@dataclass(frozen=True, kw_only=True)
class AcquisitionDate:
    """When a mosaic was acquired, and how that is known.

    Attributes:
        time: naive UTC; the first moment of what `precision` leaves open. None = not known.
        origin: what says so: the header, the file's name, its folder's name, the user's pattern for the name, or the
            archive that lists the file; None where nothing does.
        precision: ``second``, ``day``, ``month`` or ``year``; None without a time.
        doubt: why there is no date although something looks like one, or why the date may be wrong; None = no doubt.
    """

    time: datetime | None = None
    origin: Origin | None = None
    precision: Literal["second", "day", "month", "year"] | None = None
    doubt: str | None = None

    @property
    def is_certain(self) -> bool:
        """Whether there is a date and nothing speaks against it."""
        return self.time is not None and self.doubt is None

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "time": None if self.time is None else self.time.isoformat(),
            "origin": self.origin,
            "precision": self.precision,
            "doubt": self.doubt,
        }


UNDATED = AcquisitionDate()
"""Of what tells no date, and has nothing that looks like one."""


def listed_date(time: datetime) -> AcquisitionDate:
    """A date that an archive gives its files: an item's, a row's, or of several files of one day the earliest."""
    return AcquisitionDate(time=naive_utc(time), origin="archive", precision="second")


def date_of(path: str, tags: Mapping[str, str], pattern: str | None = None) -> AcquisitionDate:
    """From what metadata readers call the acquisition, else from the name of the file, else from that of its folder.

    TIFF's own DateTime is no help: it says when the file was written.

    Args:
        path: file, URL or Zarr group.
        tags: of its header.
        pattern: of the user, as :mod:`storage.imagery.dates.patterns` has them; where it is given, it alone decides.

    Raises:
        InputError: the name does not match the pattern.
    """
    if pattern is not None:
        return date_in_name(path, pattern)
    stated = _date_in_header(tags)
    named = date_in_name(path)
    if stated is None:
        return named
    assert stated.time is not None
    if is_future(stated.time):
        return AcquisitionDate(doubt=f"its header says {_words(stated.time)}, which lies in the future")
    if named.origin == "name" and named.time is not None and not _agree(stated.time, named):
        return replace(stated, doubt=f"its header says {_words(stated.time)}, its name {_written(named)}")
    return stated


def date_in_name(path: str, pattern: str | None = None) -> AcquisitionDate:
    """The date in the name of a file, or, where that has nothing like a date, in the name of the folder it lies in.

    Args:
        path: file, URL or Zarr group.
        pattern: as in :func:`date_of`.

    Raises:
        InputError: the name does not match the pattern.
    """
    _, name = _names(path)
    if pattern is not None:
        candidate = DatePattern(pattern).read(name, path=path)
        return AcquisitionDate(time=candidate.time, origin="pattern", precision=candidate.precision)
    named = _judged(read_dates(name), "name")
    if named.time is not None or named.doubt is not None:
        return named
    return next((date for date in _dates_elsewhere(path, name) if date.time is not None), named)


def _dates_elsewhere(path: str, name: str) -> Iterator[AcquisitionDate]:
    """What tells the date where a file's name does not: one file has one date, by whatever path it is named."""
    if "://" in path or path.startswith("/vsi"):
        yield _date_in_folder(_names(path)[0])
        return
    try:
        folders, own_name = _names(str(Path(path).resolve()))  # as it lies, where links lead to it
    except (OSError, RuntimeError, ValueError):  # links that go round, a name that no file can have
        folders, own_name = _names(path)
    if own_name != name:
        yield _judged(read_dates(own_name), "name")
    yield _date_in_folder(_names(str(Path(path).absolute()))[0])
    yield _date_in_folder(folders)


def naive_utc(time: datetime) -> datetime:
    """A time in UTC without saying so, as stores keep it; one without a zone is taken for UTC.

    Raises:
        ValueError: in UTC it lies before the year 1 or after 9999.
    """
    try:
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except OverflowError as error:
        raise ValueError(f"{time} has no place in the calendar") from error


def joint_date(dates: Iterable[tuple[str, AcquisitionDate]]) -> AcquisitionDate:
    """The date of a mosaic made of several files: the earliest, in doubt where the files are of several days.

    Args:
        dates: path and date of each file, at least one.
    """
    dates = list(dates)
    if doubtful := next(((path, date) for path, date in dates if date.doubt), None):
        path, date = doubtful
        return date if len(dates) == 1 else replace(date, doubt=f"of {path}: {date.doubt}")
    known = sorted(
        ((date.time, path, date) for path, date in dates if date.time is not None), key=lambda entry: entry[0]
    )
    if not known:
        return UNDATED
    (first, first_path, date), (last, last_path, _) = known[0], known[-1]
    if len(known) < len(dates):
        lacking = next(path for path, other in dates if other.time is None)
        return replace(date, doubt=f"{first_path} is of {_words(first)}, but {lacking} tells no date")
    if first.date() != last.date():
        return replace(
            date,
            doubt=f"its files are of several dates: {first_path} of {_words(first)}, {last_path} of {_words(last)}",
        )
    return date


def _date_in_header(tags: Mapping[str, str]) -> AcquisitionDate | None:
    """From GDAL's readers of satellite metadata, the tags of HLS, and those of a Landsat MTL file."""
    stated = [tags.get("ACQUISITIONDATETIME"), tags.get("SENSING_TIME", "").partition(";")[0]]
    if day := tags.get("DATE_ACQUIRED"):
        stated.append(f"{day}T{clock}" if (clock := tags.get("SCENE_CENTER_TIME", "").strip('"')) else day)
    for text in stated:
        try:
            time = naive_utc(datetime.fromisoformat((text or "").strip()))
        except ValueError:
            continue
        return AcquisitionDate(
            time=time, origin="header", precision="day" if len((text or "").strip()) <= 10 else "second"
        )
    return None


def _agree(time: datetime, named: AcquisitionDate) -> bool:
    """Whether a header's time is that of a name, to a day: names often have local time."""
    assert named.time is not None
    if named.precision == "year":
        return time.year == named.time.year
    if named.precision == "month":
        return (time.year, time.month) == (named.time.year, named.time.month)
    return abs((time.date() - named.time.date()).days) <= 1


def _names(path: str) -> tuple[list[str], str]:
    """Names of the folders above a file, the outermost first, and the file's own, without what follows a URL's path.

    A zip or tar file is the folder of what it holds.
    """
    if path.startswith("/vsi"):
        path = re.sub(r"\.(?:zip|tar|tar\.gz|tgz)\}?(?=/)", "", path, flags=re.IGNORECASE).replace("{", "")
    elif "://" in path:
        path = unquote(urlsplit(path).path)
    parts = [part for part in re.split(r"[/\\]", path) if part and part != "."]
    return (parts[:-1], parts[-1]) if parts else ([], "")


def _date_in_folder(folders: list[str]) -> AcquisitionDate:
    """2019-06-01/B02.tif and 2019/06/01/B02.tif are of that day; of any other folder's name it is only likely."""
    if not folders:
        return UNDATED
    if re.fullmatch(r"(19|20)\d\d/(0?[1-9]|1[0-2])/\d{1,2}", nested := "/".join(folders[-3:])):
        year, month, day = (int(part) for part in nested.split("/"))
        return _judged(read_dates(f"{year:04d}-{month:02d}-{day:02d}"), "folder")
    found = _judged(read_dates(folders[-1]), "folder")
    if found.time is None:  # a folder's name is no statement on a file: what cannot be read there is no doubt
        return UNDATED
    if re.fullmatch(r"[\d._-]+", folders[-1]) and found.precision == "day":
        return found
    return replace(found, doubt=f"it is of {_written(found)} by the name of its folder alone, {folders[-1]}")


def _judged(found: tuple[list[DateCandidate], str | None], origin: Origin) -> AcquisitionDate:
    """The one date among candidates, if there is one that can be taken."""
    candidates, doubt = found
    if doubt is not None:
        return AcquisitionDate(doubt=doubt)
    if not candidates:
        return UNDATED
    if future := next((c for c in candidates if is_future(c.time)), None):
        return AcquisitionDate(doubt=f"{future.text} in its name lies in the future")
    days = {(candidate.time.date(), candidate.precision == "year") for candidate in candidates}
    if len(days) > 1:
        texts = list(dict.fromkeys(candidate.text for candidate in candidates))
        return AcquisitionDate(doubt=f"its name has {len(days)} dates, {' and '.join(texts)}, or a span of time")
    best = min(candidates, key=lambda candidate: (candidate.precision != "second", candidate.time))
    return AcquisitionDate(time=best.time, origin=origin, precision=best.precision)


def _words(time: datetime) -> str:
    return f"{time:%Y-%m-%d}"


def _written(date: AcquisitionDate) -> str:
    assert date.time is not None
    return date.time.strftime({"year": "%Y", "month": "%Y-%m"}.get(date.precision or "", "%Y-%m-%d"))

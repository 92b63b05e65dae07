"""Dates in a name, as candidates: scene ids of known missions, calendar dates in any order, months, and bare years."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<mon>jan(?:uary?)?|feb(?:ruary?)?|mar(?:ch)?|apr(?:il)?|may|jun[ei]?|jul[yi]?|aug(?:ust)?|sep(?:t|tember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)(?![a-z])"
)
"""A month by its name, short or long, and no other word that begins like one: Marseille, Augsburg, Juneau."""
_YEAR = r"(?P<Y>(?:19|20)\d{2})"
_CLOCK = r"(?P<H>\d{2})(?P<M>\d{2})(?P<S>\d{2})"
_DAY = rf"{_YEAR}(?P<m>\d{{2}})(?P<d>\d{{2}})"
_ORDINAL = rf"{_YEAR}(?P<j>\d{{3}})"

_SCENE_IDS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Landsat products and ARD: acquisition, then processing
        rf"(?<![a-z0-9])L[COTEM]\d{{2}}_[A-Z0-9]{{2,4}}_\d{{6}}_{_DAY}(?!\d)",
        # Landsat scenes before Collection 1: path, row, year and day of the year
        rf"(?<![a-z0-9])L[COTEM]\d\d{{6}}{_ORDINAL}[A-Z]{{3}}\d{{2}}(?!\d)",
        # Sentinel-2 products of old: sensing after V
        rf"(?<![a-z0-9])S2[A-D]_OPER_PRD_\w+?_V{_DAY}T{_CLOCK}",
        # Sentinel-2: sensing, then baseline, orbit, tile, processing
        rf"(?<![a-z0-9])S2[A-D]_MSI\w{{3}}_{_DAY}T{_CLOCK}_N\d{{4}}",
        # Sentinel-1, 3, 5P: begin, end and, where it stands, making
        rf"(?<![a-z0-9])S1[A-D]_\w{{2}}_\w{{4}}_\w{{4}}_{_DAY}T{_CLOCK}",
        rf"(?<![a-z0-9])S1[A-D]-\w{{2,3}}-\w{{3}}-\w{{2}}-{_DAY}T{_CLOCK}",
        rf"(?<![a-z0-9])S3[A-D]_\w{{2}}_\d_\w{{6}}_{_DAY}T{_CLOCK}",
        rf"(?<![a-z0-9])S5P_\w{{4}}_L\w{{2}}_\w{{7}}_{_DAY}T{_CLOCK}",
        # HLS
        rf"(?<![a-z0-9])HLS\.[LS]30\.T\w{{5}}\.{_ORDINAL}T{_CLOCK}",
        # ASTER: month first, and the time of making after it; EO-1
        rf"(?<![a-z0-9])AST_\w{{3,4}}_\d{{3}}(?P<m>\d{{2}})(?P<d>\d{{2}}){_YEAR}{_CLOCK}(?!\d)",
        rf"(?<![a-z0-9])EO1[AH]\d{{6}}{_ORDINAL}",
        # Pléiades and SPOT, to a tenth of a second
        rf"(?<![a-z0-9])(?:PHR1[AB]|PNEO\d|SPOT[67])_\w+?_{_DAY}{_CLOCK}\d(?!\d)",
        # MODIS, VIIRS and what AppEEARS makes of them
        rf"(?<![a-z0-9])A{_ORDINAL}(?!\d)",
        rf"(?<![a-z])doy{_ORDINAL}(?:{_CLOCK})?(?!\d)",
        # NAIP: flight, then version
        rf"(?<![a-z0-9])[mn]_\d{{7}}_(?:ne|nw|se|sw)_\d{{1,2}}_\w{{1,3}}_{_DAY}(?!\d)",
        # EnMAP: acquisition, then processing
        rf"(?<![a-z0-9])ENMAP\w*-\w+-DT\d{{10}}_{_DAY}T{_CLOCK}Z",
        # PlanetScope, SkySat
        rf"^{_DAY}_{_CLOCK}_(?:\d{{2}}_)?(?:[0-9a-f]{{4}}|ssc\w+?)(?![a-z0-9])",
    )
)
"""The first of those that fits a name decides; what else looks like a date in it is processing, or an end."""

_WORLDVIEW = re.compile(
    r"^(?P<y>\d{2})(?P<mon>[A-Z]{3})(?P<d>\d{2})(?P<H>\d{2})(?P<M>\d{2})(?P<S>\d{2})-[MPS]\d[A-Z]{2}"
)

_CALENDAR = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<!\d){_YEAR}(?P<sep>[-_.]?)(?P<m>\d{{2}})(?P=sep)(?P<d>\d{{2}})(?!\d)"
        r"(?:T(?P<H>\d{2})[-:]?(?P<M>\d{2})(?:[-:]?(?P<S>\d{2}))?(?!\d))?",
        rf"(?<!\d){_DAY}{_CLOCK}(?!\d)",
        rf"(?<!\d){_DAY}(?P<H>\d{{2}})(?P<M>\d{{2}})(?!\d)",
        rf"(?<!\d){_ORDINAL}T{_CLOCK}(?!\d)",
        rf"(?<!\d)(?P<d>\d{{1,2}})(?:st|nd|rd|th)?[-_. ]{{0,2}}{_MONTH}[-_., ]{{0,2}}{_YEAR}(?!\d)",
        rf"(?<!\d){_YEAR}[-_. ]?{_MONTH}[-_. ]?(?P<d>\d{{1,2}})(?!\d)",
        rf"(?<![a-z0-9]){_MONTH}[-_. ]?(?P<d>\d{{1,2}})(?:st|nd|rd|th)?[-_., ]{{1,2}}{_YEAR}(?!\d)",
        rf"(?<![\dv]){_YEAR}(?P<sep>[-.])(?P<m>\d{{1,2}})(?P=sep)(?P<d>\d{{1,2}})(?!\d|\.\d)",
        rf"(?<!\d){_YEAR}年(?P<m>\d{{1,2}})月(?P<d>\d{{1,2}})日",
    )
)
_DAY_FIRST = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?<![\dvV])(?P<a>\d{{1,2}})(?P<sep>[-.])(?P<b>\d{{1,2}})(?P=sep){_YEAR}(?!\d)",
        rf"(?<!\d)(?P<a>\d{{2}})(?P<b>\d{{2}}){_YEAR}(?!\d)",
    )
)
_UNCLEAR = tuple(
    (re.compile(pattern, re.IGNORECASE), reading)
    for pattern, reading in (
        (rf"(?<!\d)(?P<a>\d{{1,2}})_(?P<b>\d{{1,2}})_{_YEAR}(?!\d)", "day, month and year, or two numbers and a year"),
        (rf"(?<!\d){_ORDINAL}(?!\d)", "a year with its day of the year, or a number"),
        (rf"(?<!\d){_YEAR}[-_](?P<j>\d{{3}})(?!\d)", "a year with its day of the year, or with a number"),
        (
            rf"(?<!\d){_YEAR}_(?P<m>0?[1-9]|1[0-2])_(?P<d>\d{{1,2}})(?!\d)",
            "year, month and day, or a year and two numbers",
        ),
        (rf"(?<!\d){_YEAR}(?P<m>0[1-9]|1[0-2])(?!\d)", "year and month, or a number"),
        (rf"(?<!\d){_YEAR}[_.](?P<m>0[1-9]|1[0-2])(?!\d)", "year and month, or a year and a number"),
        (rf"(?<![a-z\d])(?P<m>0[1-9]|1[0-2])[-_.]{_YEAR}(?!\d)", "month and year, or a number and a year"),
        (
            rf"(?<!\d){_YEAR}[-_.](?P<m>0[1-9]|1[0-2])(?P<d>[0-3]\d)(?!\d)",
            "year, month and day, or a year and a number",
        ),
        (rf"(?<!\d){_YEAR}[-_. ]?[WQS]\d{{1,2}}(?!\d)", "a week, quarter or season, or a year and something else"),
        (rf"(?<![a-z])[WQ]\d{{1,2}}[-_. ]?{_YEAR}(?!\d)", "a week or quarter, or a year and something else"),
        (rf"(?<!\d){_YEAR}(?P<sep>[-.])\d{{1,2}}(?P=sep)\d{{1,2}}(?!\d)", "a date, but the calendar has no such day"),
    )
)
_MONTHLY = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<!\d){_YEAR}-(?P<m>0[1-9]|1[0-2])(?!\d)",
        rf"(?<![a-z0-9]){_MONTH}[-_. ]?{_YEAR}(?!\d)",
        rf"(?<!\d){_YEAR}[-_. ]?{_MONTH}(?![a-z0-9])",
    )
)
_BARE_YEAR = re.compile(rf"(?<!\d){_YEAR}(?!\d)")
_SIZE_AFTER = re.compile(
    r"[-_ ]?[x×][-_ ]?\d|_(?:1080|1200)(?!\d)|(?:px|pix|m|cm|mm|km|ft|dpi|ppi|k|mb|gb|ha|nm|hz|bit|p)(?![a-z])|[.,]\d",
    re.IGNORECASE,
)
_SIZE_BEFORE = re.compile(r"\d[-_ ]?[x×][-_ ]?$|\d[.,]$", re.IGNORECASE)
_LETTERS_BEFORE = re.compile(r"(?<![a-z])[a-z]{1,2}$", re.IGNORECASE)
"""As in r2019c2021: what numbers rows, zones or versions."""
_WORDS = (
    "tiles?|rows?|cols?|column|path|part|block|chip|patch|crop|cell|strip|frame|orbit|zone|zoom|sheet|epsg|utm|size|res|"
    "width|height|id|idx|index|no|nr|num|number"
)
_NUMBER_WORD = re.compile(rf"(?<![a-z])(?:{_WORDS})[-_. ]?$", re.IGNORECASE)
_SECOND_YEAR = re.compile(r"[-_](\d{2})(?!\d)")
"""As in 2018-19."""
_COLUMN_BEFORE = re.compile(r"(?<![a-z])(?:zoom|z)[-_. ]?\d+[-_. ]$", re.IGNORECASE)
"""As in z15_1998_1234, a tile of the web by its zoom, column and row."""
_NUMBERS_BEFORE = re.compile(rf"(?<![a-z])(?:{_WORDS})[-_. ]?(?:\d+[-_. ])*$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class DateCandidate:
    """What may be the date in a name.

    Attributes:
        time: naive UTC.
        text: as it stands there.
    """

    time: datetime
    precision: Literal["second", "day", "month", "year"]
    text: str


def is_future(time: datetime) -> bool:
    """Whether a naive UTC time is later than tomorrow, which no clock and no time zone makes an acquisition."""
    return time.date() > (datetime.now(UTC) + timedelta(days=1)).date()


def read_dates(name: str) -> tuple[list[DateCandidate], str | None]:
    """What may be the date in a name, of one kind: the most telling that there is; and why none of it can be taken.

    Returns:
        candidates, several where the name has several; and None, or a doubt in words, which leaves no candidate.
    """
    for pattern in _SCENE_IDS:
        if match := pattern.search(name):
            candidate = _candidate(match)
            # what else stands in the name of a scene is no acquisition
            return ([candidate], None) if candidate else ([], f"{match[0]} in its name has a day that no calendar has")
    if (match := _WORLDVIEW.match(name)) and match["mon"].lower() in MONTHS and (candidate := _candidate(match)):
        return [candidate], None
    days = [c for pattern in _CALENDAR for match in pattern.finditer(name) if (c := _candidate(match))]
    exchangeable = []
    for match in (match for pattern in _DAY_FIRST for match in pattern.finditer(name)):
        readings = _day_first(match)
        if len(readings) == 1:
            days += readings
        elif readings and not any(reading.time == day.time for reading in readings for day in days):
            exchangeable.append((match[0], readings))
    if exchangeable:
        text, readings = exchangeable[0]
        either = " or ".join(f"{reading.time:%Y-%m-%d}" for reading in readings)
        return [], f"{text} in its name is {either}: day and month can be exchanged"
    if days:
        return days, None
    for unclear, reading in _UNCLEAR:
        for match in unclear.finditer(name):
            if _may_be_a_date(match) and not _NUMBERS_BEFORE.search(name[: match.start()]):
                return [], f"{match[0]} in its name may be {reading}"
    months = [c for pattern in _MONTHLY for match in pattern.finditer(name) if (c := _candidate(match))]
    return (months, None) if months else _bare_years(name)


def _bare_years(name: str) -> tuple[list[DateCandidate], str | None]:
    """The one year that stands alone in a name; sizes, numbers of tiles and years to come are none."""
    years: dict[str, DateCandidate] = {}
    numbers: list[str] = []
    lettered: list[str] = []
    future: list[str] = []
    for match in _BARE_YEAR.finditer(name):
        before, after = name[: match.start()], name[match.end() :]
        if _SIZE_AFTER.match(after) or _SIZE_BEFORE.search(before):
            continue
        time = datetime(int(match[0]), 1, 1)
        if is_future(time):
            future.append(match[0])
            continue
        if (second := _SECOND_YEAR.match(after)) and int(second[1]) == (int(match[0]) + 1) % 100:
            return [], f"{match[0]}{second[0]} in its name may be two years, or a year and a number"
        if not _NUMBER_WORD.search(before) and (letters := _LETTERS_BEFORE.search(before)):
            lettered.append(letters[0] + match[0])
            continue
        if word := _NUMBER_WORD.search(before) or _COLUMN_BEFORE.search(before):
            numbers.append(word[0] + match[0])
        years[match[0]] = DateCandidate(time=time, precision="year", text=match[0])
    if len(years) > 1:
        return [], f"{' and '.join(years)} in its name may both be years"
    if numbers or (lettered and not years):
        return [], f"{(numbers or lettered)[0]} in its name may be a number or a year"
    if future and not years:
        return [], f"{future[0]} in its name lies in the future"
    return list(years.values()), None


def _day_first(match: re.Match[str]) -> list[DateCandidate]:
    """Day, month and year, or month, day and year: two readings where both are days of the calendar."""
    first, second, year = int(match["a"]), int(match["b"]), int(match["Y"])
    times = dict.fromkeys(
        time
        for day, month in ((first, second), (second, first))
        if (time := _time(lambda: datetime(year, month, day)))  # noqa: B023  called at once
    )
    return [DateCandidate(time=time, precision="day", text=match[0]) for time in times]


def _may_be_a_date(match: re.Match[str]) -> bool:
    """Whether the numbers of a match are in the calendar's range."""
    groups = match.groupdict()
    if groups.get("j") is not None:
        return 1 <= int(groups["j"]) <= 366
    if groups.get("a") is not None:
        return bool(_day_first(match))
    return groups.get("d") is None or 1 <= int(groups["d"]) <= 31


def _candidate(match: re.Match[str]) -> DateCandidate | None:
    """A match as a date, if the calendar has it."""
    groups = {name: value for name, value in match.groupdict().items() if value is not None}
    text = match[0]
    if "H" in groups and (time := time_of(groups)):
        return DateCandidate(time=time, precision="second", text=_shown(text, groups))
    without_clock = {name: value for name, value in groups.items() if name not in "HMS"}
    time = time_of(without_clock)
    if time is None:
        return None
    precision: Literal["day", "month"] = "day" if {"d", "j"} & groups.keys() else "month"
    return DateCandidate(time=time, precision=precision, text=_shown(text, groups))


def _shown(text: str, groups: dict[str, str]) -> str:
    """What of a match is the date: a scene id has more to it."""
    return text if len(text) <= 20 else "".join(groups.get(name, "") for name in ("Y", "y", "mon", "m", "d", "j"))


def time_of(groups: dict[str, str]) -> datetime | None:
    """The time that parts of a date make; None where the calendar has none.

    Args:
        groups: digits by the letter of their strptime code (Y, y, m, d, j, H, M, S), and ``mon``, a month's name.
    """
    year = int(groups["Y"]) if "Y" in groups else _four_digits(int(groups["y"]))
    hour, minute, second = (int(groups.get(name, 0)) for name in "HMS")
    if "j" in groups:
        first = _time(lambda: datetime(year, 1, 1, hour, minute, second))
        time = first and first + timedelta(days=int(groups["j"]) - 1)
        return time if time and time.year == year else None
    month = MONTHS.index(groups["mon"][:3].lower()) + 1 if "mon" in groups else int(groups.get("m", 1))
    return _time(lambda: datetime(year, month, int(groups.get("d", 1)), hour, minute, second))


def _four_digits(year: int) -> int:
    """1969 to 2068, as strptime reads two digits."""
    return year + (1900 if year >= 69 else 2000)


def _time(make: Callable[[], datetime]) -> datetime | None:
    try:
        return make()
    except ValueError:
        return None

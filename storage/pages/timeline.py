"""The timeline of a series: one page on which a person sees every date, what changed between them, and when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from math import floor, log10
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from storage.pages.colours import MISSING, colours
from storage.pages.page import Section, area_words, render
from storage.pages.pictures import Colour, outlines, photograph, png, see_through
from tiling.conventions import NODATA

NO_CHANGE, UNKNOWN = -1, -2
"""Numbers in what :func:`first_look` makes that stand for no pair."""

_EVERY = 7
"""Every n-th pixel is enough to know percentiles."""


@dataclass(frozen=True, kw_only=True)
class TimelineDate:
    """One date.

    Attributes:
        image: (3, h, w) as the imagery has it; `valid`: (h, w).
        note: what a reader should know of it, in a few words.
    """

    day: date
    image: NDArray[Any]
    valid: NDArray[np.bool_]
    note: str


@dataclass(frozen=True, kw_only=True)
class TimelinePair:
    """Two of the dates.

    Attributes:
        earlier, later: their numbers among the dates.
        probability: (h, w) uint8 as stored, of the size of the dates' pictures; 255 = nodata.
        changed_m2: area above the threshold; `places`: its connected parts; `share`: of what is valid in both dates.
    """

    earlier: int
    later: int
    probability: NDArray[np.uint8]
    changed_m2: float
    places: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Everything that the page shows.

    Attributes:
        pairs: by the later date.
        level: smallest stored probability that is a change; `threshold`: as a person reads it.
        pixel_m: metres along one pixel of the pictures, from west to east.
        cards: (what, figure, explanation) of the summary.
        sections: tables that come last, each to be unfolded.
    """

    title: str
    subtitle: str
    dates: Sequence[TimelineDate]
    pairs: Sequence[TimelinePair]
    level: int
    threshold: float
    pixel_m: float
    cards: Sequence[tuple[str, str, str]]
    warnings: Sequence[str]
    sections: Sequence[Section]


def first_look(probabilities: Sequence[NDArray[np.uint8]], level: int) -> NDArray[np.int16]:
    """(h, w): number of the first pair that shows a change; :data:`NO_CHANGE`, :data:`UNKNOWN`."""
    first = np.full(probabilities[0].shape, UNKNOWN, dtype=np.int16)
    for number, probability in enumerate(probabilities):
        valid = probability != NODATA
        first[valid & (first == UNKNOWN)] = NO_CHANGE
        first[valid & (probability >= level) & (first == NO_CHANGE)] = number
    return first


def write_timeline(path: Path, data: Timeline) -> bytes:
    """Write the page, which needs nothing but itself; returns the map of first changes with its legend, as PNG."""
    first = first_look([pair.probability for pair in data.pairs], data.level)
    days = [entry.day for entry in data.dates]
    palette = _palette(len(data.pairs))
    pixels = max(int((first != UNKNOWN).sum()), 1)
    height, width = first.shape
    bar_m = _round_length(0.22 * width * data.pixel_m)
    axis = _axis([pair.changed_m2 for pair in data.pairs])
    bars = _bars(data, days, axis[-1][0])
    render(
        path,
        "timeline.html",
        page=data,
        width=width,
        height=height,
        dates=[
            {"day": f"{entry.day}", "picture": photograph(picture), "note": entry.note}
            for entry, picture in zip(data.dates, _stretched(data.dates), strict=True)
        ],
        pairs=[
            {
                "earlier": pair.earlier,
                "later": pair.later,
                "name": f"{days[pair.earlier]} to {days[pair.later]}",
                "start": f"{days[pair.earlier]}",
                "end": f"{days[pair.later]}",
                "probability": photograph(colours(pair.probability)),
                "outline": outlines((pair.probability != NODATA) & (pair.probability >= data.level)),
                "colour": "#" + "".join(f"{part:02x}" for part in palette[number]),
                "first": f"{(first == number).sum() / pixels:.1%}",
                "area": area_words(pair.changed_m2),
                "places": pair.places,
                "share": f"{pair.share:.1%}",
                "bar": bars[number],
            }
            for number, pair in enumerate(data.pairs)
        ],
        first=_first_overlay(first, palette),
        never=f"{(first == NO_CHANGE).sum() / pixels:.1%}",
        ticks=_ticks(days),
        axis=axis,
        chosen=max(range(len(data.pairs)), key=lambda number: data.pairs[number].changed_m2),
        scale_bar={"share": 100 * bar_m / (width * data.pixel_m), "words": _length_words(bar_m)},
    )
    return _first_picture(first, palette, [pair_days(data, pair) for pair in data.pairs])


def pair_days(data: Timeline, pair: TimelinePair) -> tuple[date, date]:
    return data.dates[pair.earlier].day, data.dates[pair.later].day


def _palette(count: int) -> list[Colour]:
    """From early to late along a scale that colour-blind readers order in the same way, and that no grey is part of."""
    rgb = colormaps["plasma"](np.linspace(0.05, 0.95, count))[:, :3] * 255
    return [(int(r), int(g), int(b)) for r, g, b in rgb]


def _bars(data: Timeline, days: Sequence[date], top: float) -> list[dict[str, float]]:
    """Left, width and height in per cent: as wide as the time between the dates where no two pairs share any of it."""
    begin, span = days[0].toordinal(), max((days[-1] - days[0]).days, 1)
    spans = sorted(pair_days(data, pair) for pair in data.pairs)
    apart = all(one[1] <= other[0] for one, other in pairwise(spans))
    narrow = min(6.0, 60.0 / len(data.pairs))
    bars = []
    for pair in data.pairs:
        start, end = pair_days(data, pair)
        left, right = (100 * (day.toordinal() - begin) / span for day in (start, end))
        if not apart:
            left, right = (100 - narrow) * right / 100, (100 - narrow) * right / 100 + narrow
        bars.append({"left": left, "width": right - left, "height": 100 * pair.changed_m2 / top})
    return bars


def _axis(areas: Sequence[float]) -> list[tuple[float, str]]:
    """Three values of the axis of areas, in square metres and as words; the last one is its end."""
    highest = max(areas) or 1e4
    unit = 10.0 ** floor(log10(highest))
    top = next(step * unit for step in (1, 2, 3, 4, 6, 8, 10) if step * unit >= highest)
    scale, name = (1.0, "m²") if top < 1e4 else (1e4, "ha") if top < 1e7 else (1e6, "km²")
    return [(value, f"{value / scale:,g} {name}") for value in (0.0, top / 2, top)]


def _ticks(days: Sequence[date]) -> list[tuple[float, str]]:
    """(position in per cent, words): first days of years, at most eight of them, or else the first and the last day."""
    begin, span = days[0].toordinal(), max((days[-1] - days[0]).days, 1)
    years = range(days[0].year + (days[0] > date(days[0].year, 1, 1)), days[-1].year + 1)
    if len(years) < 2:
        return [(0.0, str(days[0])), (100.0, str(days[-1]))]
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if len(years) / step <= 8)
    return [(100 * (date(year, 1, 1).toordinal() - begin) / span, str(year)) for year in years if year % step == 0]


def _stretched(dates: Sequence[TimelineDate]) -> Iterator[NDArray[np.uint8]]:
    """(h, w, 3) of each date: 2nd to 98th percentile of all dates together, band by band; one date in memory."""
    limits = []
    for band in range(3):
        values = np.concatenate([entry.image[band][entry.valid][::_EVERY] for entry in dates])
        limits.append(np.percentile(values, (2, 98)) if values.size else (0.0, 1.0))
    for entry in dates:
        picture = np.full((*entry.valid.shape, 3), MISSING, dtype=np.uint8)
        for band, (low, high) in enumerate(limits):
            scaled = np.clip((entry.image[band].astype(np.float32) - low) / max(high - low, 1e-6), 0, 1) * 255
            picture[..., band][entry.valid] = scaled[entry.valid]
        yield picture


def _round_length(metres: float) -> float:
    """The longest of 1, 2 or 5 times a power of ten that is not longer."""
    unit = 10.0 ** floor(log10(metres))
    return next(step * unit for step in (5, 2, 1) if step * unit <= metres * (1 + 1e-9))


def _length_words(metres: float) -> str:
    return f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"


def _first_overlay(first: NDArray[np.int16], palette: Sequence[Colour]) -> str:
    """Coloured where a change was seen, see-through elsewhere."""
    return see_through(np.clip(first + 1, 0, None), palette)


def _first_picture(first: NDArray[np.int16], palette: Sequence[Colour], pairs: Sequence[tuple[date, date]]) -> bytes:
    """PNG: the map of first changes with its legend, for where no page can be shown."""
    dark, line = (30, 33, 38), 20
    picture = np.full((*first.shape, 3), dark, dtype=np.uint8)
    picture[first == UNKNOWN] = MISSING
    for number, colour in enumerate(palette):
        picture[first == number] = colour
    height, width = first.shape
    canvas = Image.new("RGB", (width + 260, max(height, line * (len(pairs) + 2))), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=14)
    entries = [*zip(palette, (f"{start} to {end}" for start, end in pairs), strict=True)]
    for row, (colour, text) in enumerate([*entries, (dark, "no change seen"), (MISSING, "nodata")]):
        draw.rectangle((width + 8, line * row + 3, width + 24, line * row + 17), fill=colour, outline=(120, 120, 120))
        draw.text((width + 32, line * row + 2), text, fill="black", font=font)
    return png(canvas)

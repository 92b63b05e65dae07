"""The page of a series: what it says of each pair, from pictures small enough to count by hand."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from PIL import Image

from storage.pages.page import Section
from storage.pages.thumbnails import LOOK_SIDE, image_look, probability_look, step_of
from storage.pages.timeline import NO_CHANGE, UNKNOWN, Timeline, TimelineDate, TimelinePair, first_look, write_timeline
from storage.stores.create import create_image_store, create_probability_store
from storage.stores.run_store import RunStore

DAYS = (date(2009, 8, 18), date(2012, 7, 31), date(2019, 9, 4))


def pair(earlier: int, later: int, probability: NDArray[np.uint8], changed_m2: float) -> TimelinePair:
    return TimelinePair(
        earlier=earlier, later=later, probability=probability, changed_m2=changed_m2, places=1234, share=0.25
    )


def timeline(pairs: list[TimelinePair]) -> Timeline:
    image = np.arange(3 * 20 * 30, dtype=np.uint8).reshape(3, 20, 30)
    return Timeline(
        title="<b>potholes</b>",
        subtitle="20 × 30 px",
        dates=[
            TimelineDate(day=day, image=image, valid=np.ones((20, 30), dtype=bool), note="all of it") for day in DAYS
        ],
        pairs=pairs,
        level=127,
        threshold=0.5,
        pixel_m=10.0,
        cards=[("Dates", "3", "")],
        warnings=[],
        sections=[Section(heading="Model card", preformatted="</pre><script>alert(1)</script>")],
    )


def test_the_first_pair_that_shows_a_change_is_named_and_nodata_is_not_no_change() -> None:
    random = np.random.default_rng(0)
    probabilities = [random.choice(np.array([0, 100, 200, 255], dtype=np.uint8), (60, 40)) for _ in range(4)]
    found = first_look(probabilities, 200)
    for y, x in np.ndindex(60, 40):
        values = [int(probability[y, x]) for probability in probabilities]
        changed = [number for number, value in enumerate(values) if 200 <= value <= 254]
        expected = changed[0] if changed else NO_CHANGE if any(value != 255 for value in values) else UNKNOWN
        assert found[y, x] == expected
    assert {NO_CHANGE, UNKNOWN, 0, 3} <= set(np.unique(found))


def test_bars_span_the_time_between_dates_or_stand_at_the_later_one(tmp_path: Path) -> None:
    nothing = np.zeros((20, 30), dtype=np.uint8)
    everything = np.full((20, 30), 254, dtype=np.uint8)

    def bars(pairs: list[TimelinePair]) -> list[tuple[float, ...]]:
        write_timeline(tmp_path / "page.html", timeline(pairs))
        html = (tmp_path / "page.html").read_text()
        found = re.findall(r'left: ([\d.]+)%; width: ([\d.]+)%".*?height: ([\d.]+)%', html)
        return [tuple(float(value) for value in bar) for bar in found]

    days = (DAYS[2] - DAYS[0]).days
    first = 100 * (DAYS[1] - DAYS[0]).days / days
    in_turn = bars([pair(0, 1, nothing, 1.5e6), pair(1, 2, everything, 3e6)])
    assert in_turn == [pytest.approx((0, first, 50), abs=1e-3), pytest.approx((first, 100 - first, 100), abs=1e-3)]
    # with a baseline every pair begins at the same date: bars of one width, the last one ending at the edge
    (left, wide, _), (last, also_wide, _) = bars([pair(0, 1, nothing, 1.5e6), pair(0, 2, everything, 3e6)])
    assert wide == also_wide < 10
    assert last + wide == pytest.approx(100, abs=1e-2)
    assert left + wide < last


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (DAYS, ["2010", "2012", "2014", "2016", "2018"]),
        ((date(1985, 1, 1), date(1999, 5, 5), date(2020, 1, 1)), [str(year) for year in range(1985, 2021, 5)]),
        ((date(2020, 3, 1), date(2020, 9, 1)), ["2020-03-01", "2020-09-01"]),
    ],
)
def test_the_axis_of_time_names_years_or_else_its_ends_and_fits_a_phone(
    browser: Any, tmp_path: Path, days: tuple[date, ...], words: list[str]
) -> None:
    changed = np.zeros((20, 30), dtype=np.uint8)
    data = timeline([pair(0, 1, changed, 0.0)])
    dates = [replace(data.dates[0], day=day) for day in days]
    write_timeline(tmp_path / "page.html", replace(data, dates=dates))
    html = (tmp_path / "page.html").read_text()
    ticks = re.findall(r'class="year" style="left: ([\d.]+)%"><span[^>]*>([\d-]+)<', html)
    assert [word for _, word in ticks] == words
    for at, word in ticks:
        there = date.fromisoformat(word if "-" in word else f"{word}-01-01")
        assert float(at) == pytest.approx(100 * (there - days[0]) / (days[-1] - days[0]), abs=1e-3)
    assert ">1 ha<" in html  # an axis has a length, if nothing changed too
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


def test_the_page_escapes_what_it_is_given_and_names_areas_and_lengths(tmp_path: Path) -> None:
    changed = np.zeros((20, 30), dtype=np.uint8)
    changed[:5] = 254
    changed[5:10] = 255
    picture = write_timeline(
        tmp_path / "page.html", timeline([pair(0, 1, changed, 2.5e6), pair(1, 2, np.zeros_like(changed), 0.0)])
    )
    html = (tmp_path / "page.html").read_text()
    assert "<b>potholes" not in html and "alert(1)</script>" not in html
    assert "250.00 ha in 1,234 places, 25.0% of what is valid" in html
    assert "300 ha" in html and "150 ha" in html  # the axis
    assert ">50 m</span>" in html  # 22 % of 300 m, rounded down
    # the second pair knows the five rows that the first one does not: a quarter changed, the rest did not
    assert "<time>2009-08-18</time> to <time>2012-07-31</time>, 25.0%" in html
    assert "no change seen, 75.0% of what is known" in html
    with Image.open(io.BytesIO(picture)) as shown:
        assert shown.size == (30 + 260, 80)


def test_looks_are_kept_and_made_anew_when_the_blocks_are_others(tmp_path: Path) -> None:
    side = LOOK_SIDE + 100
    grid = GeoBox((side, side), Affine(10, 0, 448_000, 0, -10, 5_412_000), "EPSG:32631")
    moment = datetime(2019, 9, 4)
    random = np.random.default_rng(1)
    images = RunStore(tmp_path / "images.zarr")
    create_image_store(images.path, grid=grid, time=moment, bands=["red", "green", "blue"], dtype="uint8", block=2048)
    pixels = random.integers(0, 255, (3, side, side)).astype(np.uint8)
    valid = random.random((side, side)) > 0.3
    images.write_image(0, pixels, valid, rows=slice(0, side), cols=slice(0, side))
    assert step_of(images) == 2
    for _ in range(2):  # made, then kept
        look, is_valid = image_look(images, tmp_path / "look.npz")
        assert np.array_equal(look, pixels[:, ::2, ::2]) and look.dtype == np.uint8
        assert np.array_equal(is_valid, valid[::2, ::2])

    pairs = RunStore(tmp_path / "pair.zarr")
    create_probability_store(pairs.path, grid=grid, interval=(moment, moment), block=2048)
    for digest in ("one", "two"):
        stored = random.integers(0, 256, (side, side)).astype(np.uint8)
        pairs.write_probability(stored[None], rows=slice(0, side), cols=slice(0, side))
        fresh = RunStore(pairs.path)
        for _ in range(2):
            found = probability_look(fresh, tmp_path / "pair.npz", digest=digest)
            corners = np.stack([stored[y::2, x::2] for y in (0, 1) for x in (0, 1)]).astype(int)
            expected = np.where(corners == 255, -1, corners).max(axis=0)
            assert np.array_equal(found, np.where(expected == -1, 255, expected))

"""Dates of acquisition: read as missions and people write them, or not and with the reason; never another day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import InputError
from storage.imagery.dates.acquisition import AcquisitionDate, date_in_name, date_of, joint_date
from storage.imagery.dates.patterns import DatePattern
from storage.imagery.mosaics import open_mosaic
from tests.rasters import geotiff


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("HLS.S30.T53SMS.2020276T013701.v2.0.tif", "2020-10-02T01:37:01"),
        ("HLS.L30.T53SMS.2020276T013701.v2.0.B04.tif", "2020-10-02T01:37:01"),
        ("MOD09GA.A2020209.h18v04.061.2020211035912.tif", "2020-07-27"),
        ("MOD13Q1.061__250m_16_days_NDVI_doy2020209_aid0001.tif", "2020-07-27"),
        ("LT51200382001124BJC00.tif", "2001-05-04"),
        ("LC08_L1TP_120038_20200102_20200823_02_T1.tif", "2020-01-02"),
        ("LC08_CU_002005_20190706_20210502_02_SR.tif", "2019-07-06"),
        ("S2A_MSIL2A_20200102T030541_N0500_R075_T48PXS_20230401T101112.tif", "2020-01-02T03:05:41"),
        ("S1A_IW_GRDH_1SDV_20200102T053512_20200103T053537_030623_038250_1234.tif", "2020-01-02T05:35:12"),
        ("20200102_101112_1003_3B_AnalyticMS.tif", "2020-01-02T10:11:12"),
        ("20200102_101112_ssc4_u0001_analytic.tif", "2020-01-02T10:11:12"),
        ("10APR01123456-M2AS-0525.tif", "2010-04-01T12:34:56"),
        ("AST_L1T_00301022020013712_20200103123456_1234.tif", "2020-01-02T01:37:12"),
        ("EO1H1200382001124110KZ.tif", "2001-05-04"),
        ("IMG_PHR1A_PMS_201906011012345_ORT.tif", "2019-06-01T10:12:34"),
        ("chirps-v2.1.2019.06.01.tif", "2019-06-01"),
        ("m_4709963_se_14_1_20190904.tif", "2019-09-04"),
        ("after 2021-06-01 (final).tif", "2021-06-01"),
        ("2019_06_01.tif", "2019-06-01"),
        ("2019.06.01.tif", "2019-06-01"),
        ("20190601101112.tif", "2019-06-01T10:11:12"),
        ("x_25122019.tif", "2019-12-25"),
        ("12-25-2019.tif", "2019-12-25"),
        ("5.5.2019.tif", "2019-05-05"),
        ("ortho_1Jun2019.tif", "2019-06-01"),
        ("tile_2019123_20200601.tif", "2020-06-01"),
        ("2018_ortho_20190601.tif", "2019-06-01"),
        ("2019-06.tif", "2019-06-01"),
        ("1985.tif", "1985-01-01"),
        ("before2019.tif", "2019-01-01"),
        ("tile_2048_2019.tif", "2019-01-01"),
        ("tile_01_2019_1024x2000.tif", "2019-01-01"),
        ("/vsicurl/https://example.org/x_20200101.tif", "2020-01-01"),
        ("https://example.org/x_20200101.tif?version=2019-12-12", "2020-01-01"),
        ("2019-06-01/B02.tif", "2019-06-01"),
        ("2019/06/01/B02.tif", "2019-06-01"),
        ("archive_2018/x_20190601.tif", "2019-06-01"),
    ],
)
def test_names_as_they_are_written(name: str, time: str) -> None:
    found = date_in_name(name)
    assert (found.time, found.doubt) == (datetime.fromisoformat(time), None)


@pytest.mark.parametrize(
    ("name", "doubt"),
    [
        ("01-06-2019.tif", "2019-06-01 or 2019-01-06: day and month can be exchanged"),
        ("01062019.tif", "day and month can be exchanged"),
        ("20190101_20191231.tif", "2 dates, 20190101 and 20191231, or a span"),
        ("2019-06-2019-08.tif", "06-2019"),
        ("2018_2021.tif", "2018 and 2021 in its name may both be years"),
        ("tile_1999_2021.tif", "1999 and 2021"),
        ("tile_2019.tif", "tile_2019 in its name may be a number or a year"),
        ("20990101.tif", "20990101 in its name lies in the future"),
        ("tile_2048.tif", "2048 in its name lies in the future"),
        ("20190601_20990101.tif", "lies in the future"),
        ("S2A_MSIL2A_20990102T030541_N0500_R075_T48PXS_20990401T101112.tif", "lies in the future"),
        ("2019_06.tif", "year and month"),
        ("ndvi_2019W23.tif", "a week"),
        ("Q3_2019.tif", "quarter"),
        ("201906.tif", "year and month"),
        ("2020209.tif", "day of the year"),
        ("2019-13-01.tif", "no such day"),
        ("before_2019/t1.tif", "by the name of its folder alone"),
    ],
)
def test_what_can_be_read_in_two_ways_is_not_read(name: str, doubt: str) -> None:
    found = date_in_name(name)
    assert not found.is_certain and found.doubt is not None and doubt in found.doubt


@pytest.mark.parametrize(
    "name", ["a.tif", "x_1024.tif", "2000x2000.tif", "dem_2000m.tif", "20191332.tif", "1920px.tif"]
)
def test_sizes_and_numbers_are_no_dates(name: str) -> None:
    assert date_in_name(name) == AcquisitionDate()


DAYS = st.dates(date(1930, 1, 1), date.today())
CLOCKS = st.times()
STYLES: list[Callable[[datetime], str]] = [
    lambda t: f"{t:%Y%m%d}",
    lambda t: f"{t:%Y-%m-%d}",
    lambda t: f"{t:%Y_%m_%d}",
    lambda t: f"{t:%Y.%m.%d}",
    lambda t: f"{t:%Y%m%dT%H%M%S}",
    lambda t: f"{t:%Y-%m-%dT%H-%M-%S}",
    lambda t: f"{t:%d-%m-%Y}",
    lambda t: f"{t:%d.%m.%Y}",
    lambda t: f"{t:%d%m%Y}",
    lambda t: f"{t:%d%b%Y}",
    lambda t: f"{t:%Y%j}T{t:%H%M%S}",
    lambda t: f"A{t:%Y%j}",
    lambda t: f"LT5120038{t:%Y%j}BJC00",
    lambda t: f"LC08_L1TP_120038_{t:%Y%m%d}_{t + timedelta(days=40):%Y%m%d}_02_T1",
    lambda t: f"S2A_MSIL2A_{t:%Y%m%dT%H%M%S}_N0500_R075_T48PXS_{t + timedelta(days=900):%Y%m%dT%H%M%S}",
    lambda t: f"{t:%Y%m%d}_{t + timedelta(days=30):%Y%m%d}",
]
NUMBERS = st.lists(st.integers(0, 99_999).map(str) | st.integers(0, 2100).map(lambda n: f"{n}x{n}"), max_size=2)


@given(DAYS, CLOCKS, st.sampled_from(STYLES), NUMBERS, NUMBERS, st.sampled_from(["tile", "r", "", "scene"]))
def test_a_date_among_numbers_is_that_date_or_none_with_a_reason(
    day: date, clock: object, style: Callable[[datetime], str], before: list[str], after: list[str], word: str
) -> None:
    time = datetime.combine(day, clock).replace(microsecond=0, tzinfo=None)  # type: ignore[arg-type]
    name = "_".join(part for part in (word, *before, style(time), *after) if part) + ".tif"
    found = date_in_name(name)
    if found.time is None:
        assert found.doubt, name
    else:
        assert found.time.date() == day, name
        assert found.precision == "day" or found.time == time, name


@given(DAYS, st.sampled_from(["tile", "part"]), st.integers(0, 99_999), st.sampled_from(["before", "ortho", "site"]))
def test_a_year_among_tiles_is_that_year_or_none_with_a_reason(day: date, word: str, tile: int, site: str) -> None:
    found = date_in_name(f"{site}_{word}_{tile}_{day:%Y}.tif")
    assert found.time == datetime(day.year, 1, 1) or (found.time is None and found.doubt)


@given(
    st.dates(date(1969, 1, 1), date.today()),
    CLOCKS,
    st.sampled_from(["%Y%j", "%d%m%Y", "%d.%m.%Y", "%y%m%d", "%d%b%y", "%Y%m%d_%H%M%S", "%m-%d-%Y"]),
)
def test_a_pattern_reads_what_strftime_writes(day: date, clock: object, pattern: str) -> None:
    time = datetime.combine(day, clock)  # type: ignore[arg-type]
    found = date_in_name(f"/data/2001-01-01/scene_{time.strftime(pattern)}_v.tif", f"*_{pattern}_*")
    expected = datetime.strptime(time.strftime(pattern), pattern)
    assert (found.time, found.origin, found.doubt) == (expected, "pattern", None)


@pytest.mark.parametrize(
    ("name", "pattern", "time"),
    [
        ("01062019.tif", "%d%m%Y", "2019-06-01"),
        ("1.6.2019.tif", "%d.%m.%Y", "2019-06-01"),
        ("LC08_L1TP_120038_20200102_20200823_02_T1.tif", "*_%Y%m%d_02_*", "2020-08-23"),
        ("LT51200382001124BJC00.tif", "LT5??????%Y%j*", "2001-05-04"),
        ("tile_1999_2021.tif", "tile_*_%Y", "2021-01-01"),
        ("100%_2019.tif", "%%_%Y", "2019-01-01"),
        ("2019_06.tif", "%Y_%m", "2019-06-01"),
    ],
)
def test_a_pattern_alone_decides(name: str, pattern: str, time: str) -> None:
    assert date_of(name, {"ACQUISITIONDATETIME": "2011-01-01"}, pattern).time == datetime.fromisoformat(time)


@pytest.mark.parametrize(
    ("name", "pattern", "words"),
    [
        ("a_20190601.tif", "%Y-%m-%d", r"a_20190601\.tif: --date-pattern '%Y-%m-%d' does not match its name"),
        ("x_20190601_20200601.tif", "%Y%m%d", r"finds 2 dates in it \(2019-06-01, 2020-06-01\)"),
        ("x_20990601.tif", "%Y%m%d", "finds 2099-06-01 in it, which lies in the future"),
        ("x_20191301.tif", "%Y%m%d", "no day that the calendar has"),
        ("x.tif", "%m%d", r"'%m%d' cannot be used: it has no year"),
        ("x.tif", "%Y%Q", "%Q is none of %Y"),
        ("x.tif", "%Y%y", "two years"),
        ("x.tif", "%Y%d", "a day .* without its month"),
        ("x.tif", "%Y%m%Y", "it has %Y twice"),
        ("x.tif", "%Y%", "% is none of"),
    ],
)
def test_a_pattern_that_tells_no_date_is_refused(name: str, pattern: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        date_in_name(name, pattern)


@given(st.text(st.sampled_from("%YymdjbHMS*?._-x2"), max_size=12), st.text(max_size=20))
def test_any_pattern_and_name_has_an_answer(pattern: str, name: str) -> None:
    try:
        found = DatePattern(pattern).read(name, path=name)
    except InputError:
        return
    assert found.time.date() <= datetime.now(UTC).date() + timedelta(days=1)


@given(st.text(st.characters(categories=["Nd", "Lu", "Ll", "Pd", "Pc"]) | st.sampled_from("0129._-T/"), max_size=30))
def test_any_name_has_an_answer(name: str) -> None:
    found = date_in_name(name)
    assert found.time is None or found.time.date() <= datetime.now(UTC).date() + timedelta(days=1)


def test_links_that_go_round_have_no_date(tmp_path: Path) -> None:
    (tmp_path / "one.tif").symlink_to("two.tif")
    (tmp_path / "two.tif").symlink_to("one.tif")
    assert date_in_name(str(tmp_path / "one.tif")).time is None
    assert date_in_name("zero\0byte.tif").time is None


def test_a_header_is_believed_and_a_name_that_contradicts_it_is_a_doubt(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a_20190601.tif", np.full((1, 8, 8), 7, np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2019-06-02T01:02:03Z")
    acquired = open_mosaic(path).acquired
    assert (acquired.time, acquired.origin, acquired.doubt) == (datetime(2019, 6, 2, 1, 2, 3), "header", None)
    renamed = path.rename(tmp_path / "a_20200601.tif")
    assert open_mosaic(renamed).acquired.doubt == "its header says 2019-06-02, its name 2020-06-01"
    assert date_of("x.tif", {"SENSING_TIME": "2020-10-02T01:37:01.5Z; 2020-10-02T01:37:20Z"}).origin == "header"
    assert "future" in (date_of("x.tif", {"ACQUISITIONDATETIME": "2099-01-01"}).doubt or "")


def test_files_of_several_days_are_the_first_day_in_doubt(tmp_path: Path) -> None:
    for name in ("t1_20190602", "t2_20190601", "t3_20190601"):
        geotiff(tmp_path / f"{name}.tif", np.full((3, 8, 8), 7, np.uint8))
    acquired = open_mosaic(tmp_path).acquired
    assert acquired.time == datetime(2019, 6, 1) and "several dates" in (acquired.doubt or "")
    one_day = [(name, date_in_name(name)) for name in ("a_20190601.tif", "b_20190601.tif")]
    assert joint_date(one_day).is_certain
    assert "tells no date" in (joint_date([*one_day, ("c.tif", date_in_name("c.tif"))]).doubt or "")

"""Dates in the names of files, as `detect` and `reprocess` take them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.archive.job import resolve_archive
from flows.archive.request import ReprocessRequest
from tests.attacks.door import image, pixels, planned, refused


def day_in(folder: Path, name: str) -> str | None:
    """The day that a run would take for a file of this name; None = none."""
    later = image(folder / "later.tif", pixels())
    job = planned(image(folder / name, pixels()), later, after_date="2025-01-01")
    return f"{job.times[0]:%Y-%m-%d}" if job.dates_known else None


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("LC08_L1TP_120038_20200102_20200823_02_T1.tif", "2020-01-02"),
        ("LC08_L2SP_195025_20190601_20200828_02_T1_SR_B4.TIF", "2019-06-01"),
        ("LT51200382001124BJC00.tif", "2001-05-04"),
        ("LE70160392004262EDC02_B3.TIF", "2004-09-18"),
        ("S2A_MSIL2A_20200102T103421_N0500_R108_T32UMU_20230401T120000.tif", "2020-01-02"),
        ("S2B_32TQM_20210612_0_L2A.tif", "2021-06-12"),
        ("T32UMU_20200102T103421_B04_10m.jp2.tif", "2020-01-02"),
        ("S1A_IW_GRDH_1SDV_20190601T053400_20190601T053425_027_A1.tif", "2019-06-01"),
        ("HLS.L30.T18TYN.2021365T153812.v2.0.B04.tif", "2021-12-31"),
        ("MOD13Q1.A2019145.h18v04.061.2020303134521.tif", "2019-05-25"),
        ("VNP46A2.A2018001.h10v05.001.2021123123456.tif", "2018-01-01"),
        ("20200102_101112_ssc1d1_0012_analytic.tif", "2020-01-02"),
        ("20200102_101112_1034_3B_AnalyticMS_SR.tif", "2020-01-02"),
        ("m_4709963_se_14_1_20090818.tif", "2009-08-18"),
        ("ortho_25-12-2019.tif", "2019-12-25"),
        ("ortho_25.12.2019_rgb.tif", "2019-12-25"),
        ("ortho 2019.12.25.tif", "2019-12-25"),
        ("area_1024_2048_2019-12-25.tif", "2019-12-25"),
        ("20191225-1024x2048.tif", "2019-12-25"),
        ("m_3807725_ne_18_060_20190601_20191002.tif", "2019-06-01"),
        ("c_gls_NDVI300_201906011012_GLOBE_PROBAV_V1.0.1.tif", "2019-06-01"),
        ("ECO2LSTE.001_LST_doy2019152101253_aid0001.tif", "2019-06-01"),
        ("June_15_2019.tif", "2019-06-15"),
        ("June 15, 2019.tif", "2019-06-15"),
        ("15th_June_2019.tif", "2019-06-15"),
        ("2019-6-15.tif", "2019-06-15"),
        ("2019年06月15日.tif", "2019-06-15"),
        ("12_marseille_2019.tif", "2019-01-01"),  # a town, not a month
        ("2019_juneau_12.tif", "2019-01-01"),
    ],
)
def test_names_that_tell_the_day(tmp_path: Path, name: str, day: str) -> None:
    assert day_in(tmp_path, name) == day


@pytest.mark.parametrize(
    "name",
    [
        "tile_2048_1999_2021.tif",  # two years
        "ortho_01-06-2019.tif",  # the first of June or the sixth of January
        "composite_20190101_20191231.tif",  # a span
        "mosaic_2000x2000.tif",
        "tile_2001_1998.tif",
        "EPSG_2056_tile_1985_2017.tif",
        "00001999.tif",
        "ortho_20191399.tif",  # no month
        "img_20190230.tif",  # no such day
        "LC08_L1TP_198024_20190631_20190705_01_T1_B4.TIF",  # no such day; the other one is of processing
        "image_1920_1080.tif",
        "2000_x_2000.tif",
        "z15_1998_1234.tif",
        "ortho_2018-19.tif",  # a span
        "2019_6_1.tif",
        "2019_152.tif",  # the day of the year or a number
        "v2019.6.1.tif",
    ],
)
def test_names_that_leave_it_open(tmp_path: Path, name: str) -> None:
    assert day_in(tmp_path, name) is None


def test_a_date_in_the_future_is_none(tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(days=40)
    assert day_in(tmp_path, f"ortho_{soon:%Y%m%d}.tif") is None
    with pytest.raises(ValueError, match="future"):
        planned(image(tmp_path / "a.tif", pixels()), after_date=f"{soon:%Y-%m-%d}")


@pytest.mark.parametrize(
    ("pattern", "name", "day"),
    [
        ("*_%d%m%Y", "ortho_01062019.tif", "2019-06-01"),
        ("*_%d-%m-%Y_*", "ortho_01-06-2019_rgb.tif", "2019-06-01"),
        ("%Y%j", "2019152.tif", "2019-06-01"),
        ("tile_????_%Y", "tile_2048_2019.tif", "2019-01-01"),
    ],
)
def test_a_pattern_alone_decides(tmp_path: Path, pattern: str, name: str, day: str) -> None:
    later = image(tmp_path / "later.tif", pixels())
    job = planned(image(tmp_path / name, pixels()), later, after_date="2025-01-01", date_pattern=pattern)
    assert (f"{job.times[0]:%Y-%m-%d}", job.dates_known) == (day, True)


def test_a_name_that_does_not_match_and_a_pattern_without_a_year(tmp_path: Path) -> None:
    path = image(tmp_path / "ortho_2019-06-01.tif", pixels())
    later = image(tmp_path / "later.tif", pixels())
    given = {"after": later, "after_date": "2025-01-01"}
    refused("ortho_2019-06-01.tif", "scene_%Y", mosaic=path, date_pattern="scene_%Y", **given)
    with pytest.raises(ValueError, match="year"):
        planned(path, later, after_date="2025-01-01", date_pattern="*%d%m*")


def _archive(folder: Path, **settings: object) -> list[str]:
    request = {"archive": str(folder), "output": folder / "out", **settings}
    return [str(image.day) for image in resolve_archive(ReprocessRequest.model_validate(request)).images]


def test_an_archive_refuses_a_name_that_leaves_it_open(tmp_path: Path) -> None:
    for name in ("ortho_01-06-2019.tif", "ortho_13-06-2021.tif"):
        image(tmp_path / name, pixels())
    with pytest.raises(ValueError, match=r"ortho_01-06-2019\.tif.*--date-pattern") as caught:
        _archive(tmp_path)
    assert "This was not foreseen" not in str(caught.value)
    assert _archive(tmp_path, date_pattern="ortho_%d-%m-%Y") == ["2019-06-01", "2021-06-13"]


def test_one_file_has_one_date_by_whatever_path_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "2019-06-01"
    folder.mkdir()
    plain = image(folder / "rgb.tif", pixels())
    dated = image(tmp_path / "ortho_20210601.tif", pixels())
    (tmp_path / "link.tif").symlink_to(dated.name)
    (tmp_path / "current").symlink_to(folder.name)
    monkeypatch.chdir(folder)
    for before in ("rgb.tif", "./rgb.tif", str(plain), str(tmp_path / "current" / "rgb.tif")):
        for after in ("../ortho_20210601.tif", str(dated), str(tmp_path / "link.tif"), "../link.tif"):
            job = planned(before, after)
            assert [f"{time:%Y-%m-%d}" for time in job.times] == ["2019-06-01", "2021-06-01"], (before, after)
            assert job.dates_known

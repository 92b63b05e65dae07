"""Archives as they are: a date that cannot be read, dates of other types, lists of which a file is one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.archive.job import ArchiveJob, resolve_archive
from flows.archive.request import ReprocessRequest
from flows.archive.run import run_reprocessing
from flows.cluster.config import ClusterConfig
from flows.run.errors import BrokenDatesError
from storage.archives.listing import read_archive
from storage.errors import InputError
from tests.flows.conftest import Dasnet
from tests.rasters import geotiff

SIDE = 96


def dated(folder: Path, year: int, *, dtype: str = "uint8") -> Path:
    pixels = np.random.default_rng(year).integers(20, 200, (3, SIDE, SIDE)).astype(dtype)
    folder.mkdir(parents=True, exist_ok=True)
    return geotiff(folder / f"x_{year}0601.tif", pixels)


def request_of(archive: Path, output: Path, **more: Any) -> ReprocessRequest:
    asked = {"archive": str(archive), "output": output, "block": 64, "window": 64, "overlap": 16, **more}
    return ReprocessRequest.model_validate(asked)


def names(job: ArchiveJob) -> dict[int, str]:
    """Names of the images by year."""
    return {image.day.year: image.name for image in job.images}


def test_dates_that_can_be_read_are_done_and_the_other_is_tried_again(tmp_path: Path, workers: ClusterConfig) -> None:
    folder, output = tmp_path / "archive", tmp_path / "out"
    for year in (2018, 2019, 2020):
        dated(folder, year)
    (folder / "x_20210601.tif").write_bytes(b"")
    request = request_of(folder, output, cluster=workers)
    with pytest.raises(BrokenDatesError, match=r"1 date cannot be read; the 3 others(.|\n)*2021-06-01: .*is empty"):
        run_reprocessing(request)
    job = resolve_archive(request)
    assert len(job.pairs) == 2 and list(map(str, job.broken)) == ["2021-06-01"]
    done = sorted(path.name for path in output.rglob("*change_probability*.tif"))
    dated(folder, 2021)
    assert len(run_reprocessing(request).pairs) == 3
    assert set(done) <= {path.name for path in output.rglob("*change_probability*.tif")}


def test_where_no_date_can_be_read_the_first_says_why(tmp_path: Path) -> None:
    for year in (2018, 2019):
        (tmp_path / f"x_{year}0601.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"no date can be read: 2018-06-01 and 1 more: .*is empty"):
        resolve_archive(request_of(tmp_path, tmp_path / "out"))


def test_a_date_of_another_type_changes_no_other_date(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    for year in (2018, 2019):
        dated(folder, year)
    before = names(resolve_archive(request_of(folder, tmp_path / "out")))
    dated(folder, 2020, dtype="int16")
    job = resolve_archive(request_of(folder, tmp_path / "out"))
    assert {year: name for year, name in names(job).items() if year < 2020} == before
    image, valid = job.images[-1].reader.read(rows=slice(0, SIDE), cols=slice(0, SIDE))
    assert image.dtype == np.uint8 and valid.all()
    assert any("int16 read as uint8" in warning for warning in job.warnings)


def test_a_date_without_the_bands_is_named_and_the_others_are_planned(tmp_path: Path) -> None:
    for year in (2018, 2019, 2020):
        dated(tmp_path, year)
    geotiff(tmp_path / "x_20210601.tif", np.full((2, SIDE, SIDE), 7, np.uint8))
    job = resolve_archive(request_of(tmp_path, tmp_path / "out"))
    assert [image.day.year for image in job.images] == [2018, 2019, 2020]
    (why,) = job.broken.values()
    assert "x_20210601.tif has 2 bands" in why and "the bundle needs 3 (red, green, blue)" in why


def test_info_of_an_archive_shows_all_dates_and_ends_otherwise_where_one_cannot_be_read(
    pages: list[Path], dasnet: Dasnet
) -> None:
    linked(pages[0], href="page2.json")
    assert dasnet("info", pages[0]).code == 0
    (pages[0].parent / "x_20200601.tif").write_bytes(b"")
    ended = dasnet("info", pages[0])
    assert ended.code == 2 and "2021-06-01" in ended.out and "x_20200601.tif is empty" in ended.out


@pytest.fixture
def pages(tmp_path: Path) -> list[Path]:
    """An item collection in two files, as a search of an API answers it."""
    files = [tmp_path / "page1.json", tmp_path / "page2.json"]
    for file, years in zip(files, ((2018, 2019), (2020, 2021)), strict=True):
        features = [
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": f"x{year}",
                "geometry": None,
                "properties": {"datetime": f"{year}-06-01T00:00:00Z"},
                "links": [],
                "assets": {"image": {"href": dated(tmp_path, year).name, "type": "image/tiff; application=geotiff"}},
            }
            for year in years
        ]
        content = {"type": "FeatureCollection", "features": features, "numberMatched": 4, "numberReturned": 2}
        file.write_text(json.dumps({**content, "links": []}))
    return files


def linked(page: Path, **link: str) -> None:
    page.write_text(json.dumps({**json.loads(page.read_text()), "links": [{"rel": "next", **link}]}))


def test_the_following_page_is_read_too(pages: list[Path]) -> None:
    linked(pages[0], href="page2.json")
    assert [files.day.year for files in read_archive(pages[0])] == [2018, 2019, 2020, 2021]


def test_a_part_of_a_longer_list_is_refused(pages: list[Path]) -> None:
    with pytest.raises(InputError, match=r"page1\.json is a part of a longer list: 4 items match, it holds 2"):
        read_archive(pages[0])
    linked(pages[0], href="https://example.org/search", method="POST")
    with pytest.raises(InputError, match=r"page1\.json is a page of a longer list, whose next page has no address"):
        read_archive(pages[0])
    linked(pages[0], href="page1.json")
    with pytest.raises(InputError, match=r"names itself or an earlier page as its next page"):
        read_archive(pages[0])

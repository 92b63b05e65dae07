"""Headers that are kept are those that would be opened, and a change of anything opens them again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from storage.imagery import mosaics
from storage.imagery.description import Overrides
from storage.imagery.headers.cache import HeaderCache
from storage.imagery.mosaics import open_mosaic
from tests.rasters import geotiff

COUNT = 70


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for n in range(COUNT):
        pixels = np.full((3, 8, 8), 0 if n % 5 == 0 else 7, np.uint8)
        place = Affine(1, 0, 500_000 + 8 * n, 0, -1 if n % 2 else 1, 5_600_000 - (0 if n % 2 else 8))
        path = geotiff(folder / f"t{n:02d}_20190601.tif", pixels, transform=place, nodata=0)
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = ("nir", "red", "green")
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    paths: list[str] = []
    real = mosaics.open_source
    monkeypatch.setattr(mosaics, "open_source", lambda path, *a, **k: (paths.append(path), real(path, *a, **k))[1])
    return paths


def test_a_second_look_opens_nothing_and_sees_the_same(tiles: Path, tmp_path: Path, opened: list[str]) -> None:
    cache = HeaderCache(tmp_path / "headers.json")
    first = open_mosaic(tiles, kept=cache)
    cache.save()
    assert len(opened) >= COUNT
    assert len(first.sources) < COUNT  # empty tiles among those that were looked at
    opened.clear()
    again = open_mosaic(tiles, kept=HeaderCache(tmp_path / "headers.json"))
    assert opened == []
    assert again == first
    assert open_mosaic(tiles) == first


def _rewritten(tiles: Path) -> None:
    path = tiles / "t03_20190601.tif"
    content = path.read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def _side_car(tiles: Path) -> None:
    (tiles / "t03_20190601.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    )


@pytest.mark.parametrize("change", [_rewritten, _side_car])
def test_what_changed_is_opened_again(
    tiles: Path, tmp_path: Path, opened: list[str], change: Callable[[Path], None]
) -> None:
    cache = HeaderCache(tmp_path / "headers.json")
    open_mosaic(tiles, kept=cache)
    cache.save()
    change(tiles)
    opened.clear()
    open_mosaic(tiles, Overrides(), kept=HeaderCache(tmp_path / "headers.json"))
    assert any("t03_" in path for path in opened)


def test_what_is_said_otherwise_or_damaged_counts_for_nothing(tiles: Path, tmp_path: Path, opened: list[str]) -> None:
    cache = HeaderCache(tmp_path / "headers.json")
    open_mosaic(tiles, kept=cache)
    cache.save()
    opened.clear()
    other = open_mosaic(tiles, Overrides(nodata=7), kept=HeaderCache(tmp_path / "headers.json"))
    assert len(opened) >= COUNT
    assert other.bands[0].nodata == 7
    for content in (
        "{",
        "[]",
        '{"code": 1}',
        (tmp_path / "headers.json").read_text().replace('"code": "', '"code": "x'),
    ):
        (tmp_path / "headers.json").write_text(content)
        opened.clear()
        open_mosaic(tiles, kept=HeaderCache(tmp_path / "headers.json"))
        assert len(opened) >= COUNT

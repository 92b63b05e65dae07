"""Longitudes that differ by whole turns are one place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from shapely.geometry import box, mapping, shape

from storage.imagery.grids import common_grid, needs_resampling
from storage.imagery.mosaics import open_mosaic
from storage.imagery.rasters import GridReader
from storage.longitudes import box_in_frame, footprint_of, footprint_touches
from tests.rasters import geotiff

STEP = 1e-4
PIXELS = np.random.default_rng(0).integers(1, 255, (2, 3, 64, 64)).astype(np.uint8)


def tile(path: Path, pixels: np.ndarray, x: float, *, y: float = -17.0) -> Path:
    path.parent.mkdir(exist_ok=True)
    return geotiff(path, pixels, crs="EPSG:4326", transform=Affine(STEP, 0, x, 0, -STEP, y))


def grid(x: float, width: int = 64, *, crs: str = "EPSG:4326", step: float = STEP, y: float = -17.0) -> GeoBox:
    return GeoBox((64, width), Affine(step, 0, x, 0, -step, y), crs)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_tiles_on_both_sides_of_180_make_a_grid_as_wide_as_they_are(tmp_path: Path, names: tuple[str, str]) -> None:
    tile(tmp_path / "m" / f"{names[0]}.tif", PIXELS[0], 180 - 64 * STEP)
    tile(tmp_path / "m" / f"{names[1]}.tif", PIXELS[1], -180.0)
    mosaic = open_mosaic(tmp_path / "m")
    assert mosaic.grid.shape == (64, 128)
    image, valid = GridReader(mosaic=mosaic, grid=mosaic.grid, bands=(1, 2, 3)).read(
        rows=slice(0, 64), cols=slice(0, 128)
    )
    assert valid.all()
    assert np.array_equal(image, np.concatenate(PIXELS, axis=2))


@pytest.mark.parametrize("turn", [360, -360])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_two_dates_that_count_longitudes_otherwise_share_a_grid(tmp_path: Path, turn: int, shift: float) -> None:
    x = 179.999 if turn < 0 else -180.001
    first = open_mosaic(tile(tmp_path / "first.tif", PIXELS[0], x))
    second = open_mosaic(tile(tmp_path / "second.tif", PIXELS[1], x + turn + shift * STEP))
    own = common_grid([first, second])
    assert own == first.grid
    assert needs_resampling(second, own) is bool(shift)
    whole = {"rows": slice(0, 64), "cols": slice(0, 64)}
    image, valid = GridReader(mosaic=second, grid=own, bands=(1, 2, 3), resampling="nearest").read(**whole)
    beside = open_mosaic(tile(tmp_path / "beside.tif", PIXELS[1], x + shift * STEP))
    expected, expected_valid = GridReader(mosaic=beside, grid=own, bands=(1, 2, 3), resampling="nearest").read(**whole)
    assert valid.mean() > 0.9
    assert np.array_equal(valid, expected_valid)
    assert np.mean(image == expected) > 0.99


def test_metres_are_brought_to_longitudes_beyond_180(tmp_path: Path) -> None:
    metres = geotiff(
        tmp_path / "utm.tif", PIXELS[0], crs="EPSG:32701", transform=Affine(100, 0, 300_000, 0, -100, 8_200_000)
    )
    mosaic = open_mosaic(metres)
    images = []
    for turn in (0, 360):
        target = GeoBox((50, 50), Affine(1e-3, 0, -178.87 + turn, 0, -1e-3, -16.28), "EPSG:4326")
        reader = GridReader(mosaic=mosaic, grid=target, bands=(1,), resampling="nearest")
        images.append(reader.read(rows=slice(0, 50), cols=slice(0, 50))[0])
        assert common_grid([mosaic], crs="EPSG:4326").crs == target.crs
    assert images[0].any()
    assert np.mean(images[0] == images[1]) > 0.99


def test_regions_and_boxes_are_placed_where_the_grid_counts(tmp_path: Path) -> None:
    mosaic = open_mosaic(tile(tmp_path / "a.tif", np.tile(PIXELS[0], (1, 1, 2)), 180 - 64 * STEP))
    split = {
        "type": "MultiPolygon",
        "coordinates": [
            mapping(box(180 - 10 * STEP, -17.005, 180, -17.001))["coordinates"],
            mapping(box(-180, -17.005, -180 + 20 * STEP, -17.001))["coordinates"],
        ],
    }
    (tmp_path / "split.geojson").write_text(json.dumps(split))
    own = common_grid([mosaic], region=tmp_path / "split.geojson")
    assert own.shape == (40, 30)
    reader = GridReader(mosaic=mosaic, grid=own, bands=(1,), region=tmp_path / "split.geojson")
    assert reader.read(rows=slice(0, 40), cols=slice(0, 30))[1].all()
    eastern = BoundingBox(-180, -17.005, -180 + 20 * STEP, -17.001, crs="EPSG:4326")
    assert box_in_frame(eastern, mosaic.grid).left == 180
    assert common_grid([mosaic], bbox=(-180, -17.005, -180 + 20 * STEP, -17.001)).shape == (40, 20)


@pytest.mark.parametrize("x", [180 - 32 * STEP, -180 - 32 * STEP])
def test_a_footprint_across_180_is_cut_there(x: float) -> None:
    geometry, bounds = footprint_of(grid(x))
    assert geometry["type"] == "MultiPolygon"
    assert bounds == pytest.approx([180 - 32 * STEP, -17.0064, -180 + 32 * STEP, -17.0])
    assert shape(geometry).area == pytest.approx((64 * STEP) ** 2)
    assert all(-180 <= longitude <= 180 for part in geometry["coordinates"] for longitude, _ in part[0])
    assert all(part.exterior.is_ccw for part in shape(geometry).geoms)


def test_footprints_elsewhere_are_what_they_were() -> None:
    plain = grid(5.0)
    geometry, bounds = footprint_of(plain)
    assert bounds == list(plain.geographic_extent.boundingbox)
    assert shape(geometry).equals(plain.geographic_extent.geom)
    assert footprint_of(grid(190.0))[1] == pytest.approx([-170, -17.0064, -169.9936, -17])
    pole = GeoBox((100, 100), Affine(10_000, 0, -500_000, 0, -10_000, 500_000), "EPSG:3413")
    assert footprint_of(pole)[1][0::2] == [-180, 180]
    assert footprint_of(pole)[1][3] == 90
    globe = GeoBox((180, 360), Affine(1, 0, 0, 0, -1, 90), "EPSG:4326")
    assert footprint_of(globe)[1] == [-180, -90, 180, 90]


@pytest.mark.parametrize(
    ("ring", "place", "touches"),
    [
        ([[179, -18], [-179, -18], [-179, -16], [179, -16], [179, -18]], box(5, -20, 6, 0), False),
        ([[179, -18], [-179, -18], [-179, -16], [179, -16], [179, -18]], box(-179.5, -20, -179.2, 0), True),
        ([[179, -18], [181, -18], [181, -16], [179, -16], [179, -18]], box(-179.5, -20, -179.2, 0), True),
        ([[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]], box(5, -20, 6, 0), True),
        ([[5, -18], [6, -18], [6, -16], [5, -16], [5, -18]], box(365.2, -20, 365.5, 0), True),
    ],
)
def test_a_footprint_that_belts_the_globe_touches_what_it_was_meant_to(
    ring: list[list[float]], place: object, touches: bool
) -> None:
    assert footprint_touches({"type": "Polygon", "coordinates": [ring]}, None, place) is touches  # type: ignore[arg-type]


def test_a_box_whose_west_is_larger_than_its_east_crosses_180() -> None:
    assert footprint_touches(None, [179, -18, -179, -16], box(-179.5, -20, -179.2, 0))
    assert footprint_touches(None, [179, -18, 0, -179, -16, 9], box(-179.5, -20, -179.2, 0))
    assert not footprint_touches(None, [179, -18, -179, -16], box(5, -20, 6, 0))
    assert footprint_touches(None, None, box(5, -20, 6, 0))

"""Where pixels lie, in GeoTIFF and in Zarr; regions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry import box, mapping

from storage.imagery.grids import needs_resampling
from tests.attacks.door import PLACE, SIDE, centres, cube, image, pixels, planned, read, refused
from tests.attacks.door import holds as assert_holds


def same_place(job: Any) -> None:
    assert (job.grid.affine, job.grid.shape) == (PLACE, (SIDE, SIDE))


def test_columns_from_east_to_west(tmp_path: Path) -> None:
    mirrored = Affine(-10, 0, 500_000 + 10 * SIDE, 0, -10, 5_600_000)
    job = planned(image(tmp_path / "a.tif", pixels()[:, :, ::-1], transform=mirrored))
    same_place(job)
    assert_holds(job, pixels())


def test_both_turned_and_resampled(tmp_path: Path) -> None:
    turned = Affine(-10, 0, 500_000 + 10 * SIDE, 0, 10, 5_600_000 - 10 * SIDE)
    north = image(tmp_path / "before_20190601.tif", pixels())
    both = image(tmp_path / "after_20210601.tif", pixels()[:, ::-1, ::-1], transform=turned)
    assert_holds(planned(north, both), pixels())


@pytest.mark.parametrize(
    "spelling",
    [
        "EPSG:32631",
        CRS("EPSG:32631").to_wkt("WKT1_GDAL"),
        CRS("EPSG:32631").to_wkt("WKT1_ESRI"),
        CRS("EPSG:32631").to_wkt("WKT2_2019"),
        "+proj=utm +zone=31 +datum=WGS84 +units=m +no_defs",
        "EPSG:32631+5773",
        "urn:ogc:def:crs:EPSG::32631",
    ],
    ids=["epsg", "wkt1", "esri", "wkt2", "proj", "heights", "urn"],
)
def test_one_crs_however_it_is_spelled(tmp_path: Path, spelling: str) -> None:
    one = image(tmp_path / "before_20190601.tif", pixels())
    other = image(tmp_path / "after_20210601.tif", pixels(), crs=spelling)
    job = planned(one, other)
    assert not any(needs_resampling(mosaic, job.grid) for mosaic in job.mosaics)
    assert_holds(job, pixels())


def test_degrees_with_heights_are_degrees(tmp_path: Path) -> None:
    degrees = Affine(1e-4, 0, 3, 0, -1e-4, 50)
    one = image(tmp_path / "before_20190601.tif", pixels(), crs="EPSG:4326", transform=degrees)
    other = image(tmp_path / "after_20210601.tif", pixels(), crs="EPSG:4979", transform=degrees)
    assert_holds(planned(one, other), pixels())


def test_rpcs_alone(tmp_path: Path) -> None:
    numbers = " ".join(["0.001"] * 20)
    path = image(tmp_path / "a.tif", pixels(), crs=None, transform=None)
    names = ("LINE_OFF", "SAMP_OFF", "LAT_OFF", "LONG_OFF", "HEIGHT_OFF")
    names += ("LINE_SCALE", "SAMP_SCALE", "LAT_SCALE", "LONG_SCALE", "HEIGHT_SCALE")
    polynomials = ("LINE_NUM_COEFF", "LINE_DEN_COEFF", "SAMP_NUM_COEFF", "SAMP_DEN_COEFF")
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="RPC", **dict.fromkeys(names, "50"), **dict.fromkeys(polynomials, numbers))
    refused("a.tif", "RPC", "gdalwarp -rpc", mosaic=path)


def test_another_planet(tmp_path: Path) -> None:
    moon = (
        'GEOGCS["Moon 2000",DATUM["D_Moon_2000",SPHEROID["Moon_2000_IAU_IAG",1737400,0]],'
        'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
    )
    path = image(tmp_path / "a.tif", pixels(), crs=moon, transform=Affine(1e-4, 0, 3, 0, -1e-4, 50))
    refused("Moon", mosaic=path)


def test_a_world_file_without_a_crs(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", pixels(), crs=None, transform=None)
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n500005\n5599995\n")
    refused("a.tif", "coordinate reference system", mosaic=path)


# Zarr


def test_zarr_that_rises_and_falls(tmp_path: Path) -> None:
    x, y = centres()
    for name, turn in (("south", np.s_[:, ::-1]), ("east", np.s_[:, :, ::-1]), ("both", np.s_[:, ::-1, ::-1])):
        turned_x = x[::-1] if name != "south" else x
        turned_y = y[::-1] if name != "east" else y
        job = planned(cube(tmp_path / f"{name}.zarr", pixels()[turn], turned_x, turned_y))
        same_place(job)
        assert_holds(job, pixels())


def test_zarr_rounded_to_float32(tmp_path: Path) -> None:
    x, y = centres()
    path = cube(tmp_path / "a.zarr", pixels(), x.astype("float32"), y.astype("float32"))
    job = planned(image(tmp_path / "before_20190601.tif", pixels()), path, after_date="2021-06-01")
    assert_holds(job, pixels())


def test_zarr_in_degrees_rounded_to_float32(tmp_path: Path) -> None:
    x, y = 3 + 1e-4 * (np.arange(SIDE) + 0.5), 50 - 1e-4 * (np.arange(SIDE) + 0.5)
    path = cube(tmp_path / "a.zarr", pixels(), x.astype("float32"), y.astype("float32"), crs="EPSG:4326")
    job = planned(path)
    assert job.grid.shape == (SIDE, SIDE)
    assert abs(job.grid.affine.a - 1e-4) < 1e-7 and abs(job.grid.affine.c - 3) < 1e-5
    assert_holds(job, pixels())


def test_zarr_with_several_times(tmp_path: Path) -> None:
    time = {"time": np.array(["2019-06-01", "2020-06-01"], dtype="datetime64[ns]")}
    dims = ("time", "band", "y", "x")
    path = cube(tmp_path / "a.zarr", np.stack([pixels(), pixels()]), *centres(), dims=dims, coords=time)
    refused("a.zarr", "2", "time", mosaic=path)


# regions


SQUARE = [[3.001, 50.551], [3.012, 50.551], [3.012, 50.545], [3.001, 50.545], [3.001, 50.551]]


def test_a_bowtie_is_two_triangles_or_refused_with_the_place(tmp_path: Path) -> None:
    region = tmp_path / "region.geojson"
    bowtie = [SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3], SQUARE[0]]
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [bowtie]}))
    path = image(tmp_path / "a.tif", pixels())
    try:
        job = planned(path, grid={"region": region})
    except ValueError as error:
        assert "region.geojson" in str(error) and "3.0" in str(error)
        return
    assert 0 < job.grid.shape[0] <= SIDE


def test_longitudes_from_0_to_360(tmp_path: Path) -> None:
    west = image(
        tmp_path / "before_20190601.tif", pixels(), crs="EPSG:4326", transform=Affine(1e-4, 0, -10, 0, -1e-4, 50)
    )
    east = image(
        tmp_path / "after_20210601.tif", pixels(), crs="EPSG:4326", transform=Affine(1e-4, 0, 350, 0, -1e-4, 50)
    )
    assert_holds(planned(west, east), pixels())


def _gap(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return x, np.r_[y[:40], y[40:] - 600]


def _repeat(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.r_[x[:50], x[49:-1]], y


def _nan(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return x, np.where(np.arange(len(y)) == 7, np.nan, y)


def _unsorted(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.r_[x[:10], x[11], x[10], x[12:]], y


def _infinite(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.r_[x[:-1], np.inf], y


@pytest.mark.parametrize("broken", [_gap, _repeat, _nan, _unsorted, _infinite])
def test_zarr_whose_coordinates_make_no_grid(
    tmp_path: Path, broken: Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]
) -> None:
    refused("a.zarr", mosaic=cube(tmp_path / "a.zarr", pixels(), *broken(*centres())))


def test_zarr_with_latitude_and_longitude(tmp_path: Path) -> None:
    import xarray as xr

    x, y = 3 + 1e-4 * (np.arange(SIDE) + 0.5), 50 - 1e-4 * (np.arange(SIDE) + 0.5)
    for names in (("lat", "lon"), ("latitude", "longitude")):
        coords = {
            names[0]: (names[0], y, {"units": "degrees_north"}),
            names[1]: (names[1], x, {"units": "degrees_east"}),
        }
        array = xr.DataArray(pixels(), dims=("band", *names), coords=coords, name="image")
        path = tmp_path / f"{names[0]}.zarr"
        array.to_dataset().to_zarr(path, zarr_format=3, consolidated=False)
        job = planned(path)
        assert job.grid.crs is not None and job.grid.crs.to_epsg() == 4326
        assert any("4326" in warning for warning in job.warnings), job.warnings
        assert_holds(job, pixels())


def test_zarr_with_its_bands_last_and_one_time(tmp_path: Path) -> None:
    x, y = centres()
    last = np.moveaxis(pixels(), 0, -1)
    assert_holds(planned(cube(tmp_path / "last.zarr", last, x, y, dims=("y", "x", "band"))), pixels())
    time = {"time": np.array(["2019-06-01"], dtype="datetime64[ns]")}
    dims = ("time", "band", "y", "x")
    path = cube(tmp_path / "time.zarr", pixels()[None], x, y, dims=dims, coords=time)
    job = planned(path, image(tmp_path / "after_20210601.tif", pixels()))
    assert_holds(job, pixels(), date=0)
    assert [str(time)[:10] for time in job.times] == ["2019-06-01", "2021-06-01"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[[1, 2], [3, 4]]",
        '"region"',
        "17",
        "null",
        "{}",
        '{"type": "Polygon"}',
        '{"type": "Polygon", "coordinates": []}',
        '{"type": "Polygon", "coordinates": [[[NaN, 1], [2, 3], [4, 5], [NaN, 1]]]}',
        '{"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}',
        '{"type": "Polygon", "coordinates": ["abc"]}',
        '{"type": "Polygon", "coordinates": [[[1e999, 2], [3, 4], [5, 6], [1e999, 2]]]}',
        '{"type": "Point", "coordinates": [3.005, 50.55]}',
        '{"type": "LineString", "coordinates": [[3, 50], [4, 51]]}',
        '{"type": "FeatureCollection", "features": []}',
        '{"type": "FeatureCollection", "features": [null]}',
        '{"type": "Feature", "geometry": null, "properties": null}',
        '{"type": "GeometryCollection", "geometries": [1]}',
        '{"type": "Circle", "coordinates": [1, 2]}',
        '{"type": "GeometryCollection", "geometries": [' * 100_000 + "]}" * 100_000,
    ],
    ids=range(21),
)
def test_regions_that_are_none(tmp_path: Path, text: str) -> None:
    region = tmp_path / "region.geojson"
    region.write_text(text)
    refused("region.geojson", mosaic=image(tmp_path / "a.tif", pixels()), grid={"region": region})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_region_in_any_encoding_and_with_heights(tmp_path: Path, encoding: str) -> None:
    region = tmp_path / "region.geojson"
    heights = [[*corner, 12.5] for corner in SQUARE]
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [heights]}), encoding=encoding)
    job = planned(image(tmp_path / "a.tif", pixels()), grid={"region": region})
    assert 0 < job.grid.shape[0] <= SIDE


@pytest.mark.parametrize("west_east", [(-5.0, 11.0), (-180.0, 180.0), (0.0, 360.0)])
def test_a_long_edge_of_a_region_is_a_parallel(tmp_path: Path, west_east: tuple[float, float]) -> None:
    """Its corners lie kilometres north of where it crosses the imagery, or where UTM has no place at all."""
    west, east = west_east
    path = image(tmp_path / "a.tif", pixels())
    south, north = 50.546, 50.549
    region = tmp_path / "region.geojson"
    region.write_text(json.dumps(mapping(box(west, south, east, north))))
    job = planned(path, grid={"region": region})
    x, y = centres()
    _, latitudes = pyproj.Transformer.from_crs(32631, 4326, always_xy=True).transform(*np.meshgrid(x, y))
    inside = (latitudes > south) & (latitudes < north)
    rows = np.flatnonzero(inside.any(axis=1))
    assert job.grid.shape[0] in (len(rows), len(rows) + 1, len(rows) + 2)
    top = round((PLACE.f - job.grid.extent.boundingbox.top) / 10)
    _, valid = read(job)
    assert (valid == inside[top : top + job.grid.shape[0]]).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crs": {"type": "name", "properties": {"name": "+proj=longlat +a=3396190 +b=3376200 +no_defs"}}}, "Earth"),
        ({"crs": {"type": "name", "properties": {"name": 'LOCAL_CS["site",UNIT["metre",1]]'}}}, "Earth"),
        ({"coordinates": [[[10**400, 50], [3, 50], [3, 51], [10**400, 50]]]}, "where x and y are needed"),
    ],
)
def test_a_region_that_lies_nowhere(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = image(tmp_path / "a.tif", pixels())
    region = tmp_path / "region.geojson"
    region.write_text(json.dumps({**mapping(box(3.002, 50.545, 3.008, 50.55)), **change}))
    refused(words, mosaic=path, grid={"region": region})

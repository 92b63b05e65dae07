"""Where pixels lie, in GeoTIFF and in Zarr; regions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS

from storage.imagery.grids import needs_resampling
from tests.attacks.door import PLACE, SIDE, centres, cube, image, pixels, planned, refused
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

"""Where pixels lie, however a file says it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from affine import Affine
from odc.geo.crs import CRS
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from storage.errors import InputError
from storage.imagery.grids import common_grid, needs_resampling
from storage.imagery.mosaics import open_mosaic
from storage.imagery.rasters import GridReader
from storage.reference_systems import horizontal_crs, is_same_crs, transformation_note
from tests.rasters import geotiff

PIXELS = np.random.default_rng(0).integers(1, 255, (3, 96, 128)).astype(np.uint8)


def read(path: Path | list[Path], *, rows: slice = slice(0, 96), cols: slice = slice(0, 128)) -> np.ndarray:
    mosaic = open_mosaic(path)
    reader = GridReader(mosaic=mosaic, grid=mosaic.grid, bands=tuple(range(1, len(mosaic.bands) + 1)))
    return reader.read(rows=rows, cols=cols)[0]


@pytest.mark.parametrize(("flip_y", "flip_x"), [(True, False), (False, True), (True, True)])
def test_a_file_stored_the_other_way_round_is_its_north_up_twin(tmp_path: Path, flip_y: bool, flip_x: bool) -> None:
    twin = geotiff(tmp_path / "twin.tif", PIXELS, transform=Affine(2, 0, 500_000, 0, -2, 5_600_000))
    stored = PIXELS[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
    transform = Affine(
        -2 if flip_x else 2,
        0,
        500_000 + (256 if flip_x else 0),
        0,
        2 if flip_y else -2,
        5_600_000 - (192 if flip_y else 0),
    )
    turned = geotiff(tmp_path / "turned.tif", stored, transform=transform)
    assert open_mosaic(turned).grid == open_mosaic(twin).grid
    assert np.array_equal(read(turned), PIXELS)
    part = {"rows": slice(5, 40), "cols": slice(70, 111)}
    assert np.array_equal(read(turned, **part), PIXELS[:, 5:40, 70:111])


@pytest.mark.parametrize(("flip_y", "flip_x"), [(True, False), (False, True), (True, True)])
def test_a_zarr_group_with_ascending_y_or_descending_x_is_read_flipped(
    tmp_path: Path, flip_y: bool, flip_x: bool
) -> None:
    y, x = 5_599_999 - 2.0 * np.arange(96), 500_001 + 2.0 * np.arange(128)
    rows, cols = slice(None, None, -1 if flip_y else 1), slice(None, None, -1 if flip_x else 1)
    array = xr.DataArray(PIXELS[:, rows, cols], dims=("band", "y", "x"), coords={"y": y[rows], "x": x[cols]}, name="a")
    array.rio.write_crs("EPSG:32631").to_dataset().to_zarr(tmp_path / "a.zarr", consolidated=False)
    mosaic = open_mosaic(tmp_path / "a.zarr")
    assert mosaic.grid.affine == Affine(2, 0, 500_000, 0, -2, 5_600_000)
    assert np.array_equal(read(tmp_path / "a.zarr"), PIXELS)
    part = {"rows": slice(5, 40), "cols": slice(70, 111)}
    assert np.array_equal(read(tmp_path / "a.zarr", **part), PIXELS[:, 5:40, 70:111])


def other_spellings() -> list[str]:
    crs = pyproj.CRS.from_epsg(32631)
    return [
        "EPSG:32631+5773",
        crs.to_wkt("WKT1_GDAL"),
        crs.to_wkt("WKT1_ESRI"),
        crs.to_wkt("WKT2_2019"),
        crs.to_3d().to_wkt(),
        crs.to_json(),
        "urn:ogc:def:crs:EPSG::32631",
        "+proj=utm +zone=31 +datum=WGS84 +type=crs",
        "+proj=utm +zone=31 +ellps=WGS84 +towgs84=0,0,0,0,0,0,0 +type=crs",
    ]


@pytest.mark.parametrize("spelling", other_spellings(), ids=lambda text: text[:12])
def test_one_crs_however_it_is_spelled_is_one(tmp_path: Path, spelling: str) -> None:
    assert str(horizontal_crs(spelling)) == "EPSG:32631"
    first = open_mosaic(geotiff(tmp_path / "first.tif", PIXELS))
    # ENVI and GeoTIFF hold systems in words of their own
    other = open_mosaic(geotiff(tmp_path / "other.tif", PIXELS, crs=spelling))
    assert not needs_resampling(other, first.grid)
    assert common_grid([first, other]) == first.grid


def test_a_shift_to_wgs84_that_a_crs_brings_is_kept() -> None:
    shift = "+towgs84=598.1,73.7,418.2,0.202,0.045,-2.455,6.7"
    plain = "+proj=tmerc +lon_0=9 +x_0=3500000 +ellps=bessel +units=m"
    bound = horizontal_crs(f"{plain} {shift} +type=crs")
    shifted = pyproj.Transformer.from_crs(bound.proj, 4326, always_xy=True).transform(3_500_000, 5_500_000)
    unshifted = pyproj.Proj(plain)(3_500_000, 5_500_000, inverse=True)
    assert pyproj.Geod(ellps="WGS84").inv(*shifted, *unshifted)[2] > 100
    assert not is_same_crs(bound, CRS("EPSG:31467"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_control_points_and_sensor_models_are_named_with_how_to_warp(tmp_path: Path) -> None:
    points = [GroundControlPoint(row, col, 5e5 + col, 5.6e6 - row) for row, col in ((0, 0), (0, 99), (90, 0))]
    with pytest.raises(InputError, match=r"3 ground control points.*gdalwarp -tps -t_srs EPSG:32631"):
        open_mosaic(geotiff(tmp_path / "gcps.tif", PIXELS, transform=None, gcps=points))
    ones = [1.0] + [0.0] * 19
    rpcs = RPC(
        height_off=0, height_scale=1, lat_off=50, lat_scale=1, line_den_coeff=ones, line_num_coeff=ones, line_off=1,
        line_scale=1, long_off=5, long_scale=1, samp_den_coeff=ones, samp_num_coeff=ones, samp_off=1, samp_scale=1,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"has RPCs.*gdalwarp -rpc"):
        open_mosaic(geotiff(tmp_path / "rpcs.tif", PIXELS, transform=None, crs=None, rpcs=rpcs))
    bare = geotiff(tmp_path / "bare.tif", PIXELS, transform=None, crs=None)
    bare.with_suffix(".tfw").write_text("2\n0\n0\n-2\n500001\n5599999\n")
    with pytest.raises(InputError, match=r"its world file bare\.tfw .*-a_srs"):
        open_mosaic(bare)


@pytest.mark.parametrize(
    ("crs", "transform", "words"),
    [
        ('LOCAL_CS["Site",UNIT["metre",1]]', Affine(1, 0, 5, 0, -1, 5), "without a place on the Earth, Site"),
        ("IAU_2015:30100", Affine(1e-3, 0, 5, 0, -1e-3, 5), "not of the Earth.*1,737 km"),
        ("EPSG:4326", Affine(1e-3, 0, 5, 0, -1e-3, 120), "reaches where EPSG:4326"),
        (
            "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +to_meter=0.0174532925199433",
            Affine(0.01, 0, 1, 0, -0.01, 1),
            "GeoTIFF cannot hold its CRS.*--crs EPSG:",
        ),
    ],
)
def test_a_grid_that_no_product_could_place_is_refused_while_planning(
    tmp_path: Path, crs: str, transform: Affine, words: str
) -> None:
    mosaic = open_mosaic(geotiff(tmp_path / "a.tif", PIXELS, crs=crs, transform=transform))
    with pytest.raises(InputError, match=words):
        common_grid([mosaic, mosaic])


def test_the_operation_between_two_datums_is_named_with_its_accuracy() -> None:
    area = (8.0, 50.0, 9.0, 51.0)
    note = transformation_note(CRS("EPSG:31467"), CRS("EPSG:32632"), area)
    assert note is not None
    assert re.search(r"DHDN to WGS 84 \(2\), accurate to 3 m; 1 m need the grid de_adv_BETA2007.tif", note)
    assert transformation_note(CRS("EPSG:32631"), CRS("EPSG:32632"), area) is None


def test_one_compressed_strip_as_tall_as_the_file_is_told_with_its_cost(tmp_path: Path) -> None:
    pixels = np.ones((1, 5000, 4200), np.uint8)
    strip = geotiff(tmp_path / "strip.tif", pixels, compress="deflate", blockysize=5000)
    assert any("each is decoded about 9 times" in doubt for doubt in open_mosaic(strip).doubts)
    tiles = geotiff(tmp_path / "tiles.tif", pixels, compress="deflate", tiled=True, blockxsize=512, blockysize=512)
    rows = geotiff(tmp_path / "rows.tif", pixels, compress="deflate", blockysize=16)
    plain = geotiff(tmp_path / "plain.tif", pixels, blockysize=5000)
    for path in (tiles, rows, plain):
        assert not any("decoded" in doubt for doubt in open_mosaic(path).doubts)


@pytest.mark.parametrize(
    ("crs", "words"),
    [
        ("EPSG:4978", "without a place on the Earth"),
        ("IAU_2015:49900", "not of the Earth"),
        ("EPSG:5773", "without a place on the Earth"),
        ("EPSG:2", "is not known"),
        ("utm 31", "is not known"),
        ("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39 +lon_0=18", "GeoTIFF cannot hold"),
    ],
)
def test_a_grid_that_is_asked_for_must_have_a_place_too(tmp_path: Path, crs: str, words: str) -> None:
    mosaic = open_mosaic(geotiff(tmp_path / "a.tif", PIXELS))
    with pytest.raises(InputError, match=words) as refusal:
        common_grid([mosaic], crs=crs)
    assert "\n" not in str(refusal.value)
    assert str(common_grid([mosaic], crs="EPSG:32632+5773").crs) == "EPSG:32632"

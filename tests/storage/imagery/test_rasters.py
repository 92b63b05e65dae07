"""Pixels on the grid, against rasterio as an independent oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject

from storage.errors import InputError, ShortReadError
from storage.imagery import rasters
from storage.imagery.bands import select_bands
from storage.imagery.grids import common_grid, needs_resampling
from storage.imagery.mosaics import Mosaic, open_mosaic
from storage.imagery.rasters import GridReader
from tests.rasters import geotiff

CRS = "EPSG:32631"


def write(
    path: Path, pixels: np.ndarray, *, x: float = 500_000, y: float = 5_600_000, res: float = 2.0, **profile: object
) -> Path:
    """A tiled GeoTIFF whose upper-left corner is at (x, y)."""
    tiles: dict[str, object] = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    path.parent.mkdir(exist_ok=True)
    return geotiff(path, pixels, **{"transform": Affine(res, 0, x, 0, -res, y), **tiles, **profile})


def noise(bands: int = 3, height: int = 150, width: int = 210, seed: int = 0) -> np.ndarray:
    smooth = np.random.default_rng(seed).integers(1, 255, (bands, height // 10 + 1, width // 10 + 1))
    return np.kron(smooth, np.ones((1, 10, 10)))[:, :height, :width].astype(np.uint8)


def read_all(mosaic: Mosaic, grid: GeoBox, **options: object) -> tuple[np.ndarray, np.ndarray]:
    reader = GridReader(mosaic=mosaic, grid=grid, bands=tuple(range(1, len(mosaic.bands) + 1)), **options)  # type: ignore[arg-type]
    return reader.read(rows=slice(0, grid.height), cols=slice(0, grid.width))


def test_the_grid_itself_is_read_as_it_is(tmp_path: Path) -> None:
    pixels = noise()
    mosaic = open_mosaic(write(tmp_path / "a_20140203.tif", pixels))
    image, valid = read_all(mosaic, mosaic.grid)
    assert np.array_equal(image, pixels)
    assert valid.all()
    assert (mosaic.date.year, mosaic.date.month, mosaic.date.day) == (2014, 2, 3)  # type: ignore[union-attr]


@settings(max_examples=15, deadline=None)
@given(dx=st.integers(-40, 40), dy=st.integers(-40, 40))
def test_a_shift_by_whole_pixels_is_not_resampled(tmp_path_factory: pytest.TempPathFactory, dx: int, dy: int) -> None:
    folder, pixels = tmp_path_factory.mktemp("shift"), noise()
    first = open_mosaic(write(folder / "a.tif", pixels))
    shifted = open_mosaic(write(folder / "b.tif", pixels, x=500_000 + 2 * dx, y=5_600_000 - 2 * dy))
    assert not needs_resampling(shifted, first.grid)
    image, valid = read_all(shifted, first.grid)
    expected = np.zeros_like(pixels)
    inside = np.zeros(pixels.shape[1:], dtype=bool)
    for y in range(pixels.shape[1]):
        for x in range(pixels.shape[2]):
            if 0 <= y - dy < pixels.shape[1] and 0 <= x - dx < pixels.shape[2]:
                expected[:, y, x], inside[y, x] = pixels[:, y - dy, x - dx], True
    assert np.array_equal(image, expected)
    assert np.array_equal(valid, inside)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_a_shift_by_part_of_a_pixel_is_what_rasterio_makes_of_it(tmp_path: Path, resampling: str) -> None:
    pixels = noise()
    first = open_mosaic(write(tmp_path / "a.tif", pixels))
    other = write(tmp_path / "b.tif", pixels, x=500_000.7, y=5_600_001.1)
    image, valid = read_all(open_mosaic(other), first.grid, resampling=resampling)
    expected = np.zeros_like(pixels)
    with rasterio.open(other) as dataset:
        reproject(
            dataset.read(),
            expected,
            src_transform=dataset.transform,
            src_crs=CRS,
            dst_transform=first.grid.affine,
            dst_crs=CRS,
            resampling=Resampling[resampling],
            tolerance=0,
        )
    assert np.array_equal(image[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2])
    assert valid[2:-2, 2:-2].all()


@settings(max_examples=12, deadline=None)
@given(
    y=st.integers(0, 100),
    x=st.integers(0, 150),
    height=st.integers(1, 50),
    width=st.integers(1, 60),
    seed=st.integers(0, 3),
)
def test_resampled_values_do_not_depend_on_the_window(
    tmp_path_factory: pytest.TempPathFactory, y: int, x: int, height: int, width: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("windows")
    first = open_mosaic(write(folder / "a.tif", noise()))
    pixels = noise(seed=seed)
    pixels[:, 40:60, 30:80] = 0
    other = open_mosaic(write(folder / "b.tif", pixels, x=500_000.9, y=5_600_001.3, res=1.7, nodata=0))
    reader = GridReader(mosaic=other, grid=first.grid, bands=(1, 2, 3))
    whole, whole_valid = reader.read(rows=slice(0, 150), cols=slice(0, 210))
    rows, cols = slice(y, y + height), slice(x, x + width)
    part, part_valid = reader.read(rows=rows, cols=cols)
    assert np.array_equal(part, whole[:, rows, cols])
    assert np.array_equal(part_valid, whole_valid[rows, cols])


def test_nodata_does_not_bleed_into_resampled_values(tmp_path: Path) -> None:
    pixels = np.full((1, 100, 100), 200, dtype=np.uint8)
    pixels[:, :, 50:] = 0
    first = open_mosaic(write(tmp_path / "a.tif", np.full((1, 100, 100), 9, dtype=np.uint8)))
    image, valid = read_all(open_mosaic(write(tmp_path / "b.tif", pixels, x=500_000.8, nodata=0)), first.grid)
    assert set(np.unique(image[:, valid])) == {200}
    assert 45 < valid.sum(axis=1).max() <= 51


def _nodata(path: Path, pixels: np.ndarray, missing: np.ndarray) -> Path:
    pixels[:, missing] = 0
    return write(path, pixels, nodata=0)


def _mask_band(path: Path, pixels: np.ndarray, missing: np.ndarray) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, pixels)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(~missing)
    return path


def _alpha(path: Path, pixels: np.ndarray, missing: np.ndarray) -> Path:
    alpha = np.where(missing, 0, 255).astype(np.uint8)[None]
    return write(path, np.concatenate([pixels, alpha]), photometric="rgb", alpha="yes")


def _nan(path: Path, pixels: np.ndarray, missing: np.ndarray) -> Path:
    values = pixels.astype(np.float32)
    values[1, missing] = np.nan
    return write(path, values)


@pytest.mark.parametrize("mark", [_nodata, _mask_band, _alpha, _nan])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_every_kind_of_nodata_goes_through(tmp_path: Path, mark: object, shift: float) -> None:
    missing = np.zeros((150, 210), dtype=bool)
    missing[30:70, 100:140] = True
    path = mark(tmp_path / "a.tif", noise(), missing)  # type: ignore[operator]
    mosaic = open_mosaic(path)
    assert len(mosaic.bands) == 3
    grid = GeoBox((150, 210), Affine(2, 0, 500_000 + shift, 0, -2, 5_600_000), CRS)
    image, valid = read_all(mosaic, grid)
    assert np.array_equal(valid[:, :-1], ~missing[:, :-1])
    assert np.isfinite(image).all()
    assert (image[:, ~valid] == 0).all()


def test_a_dark_pixel_is_no_nodata(tmp_path: Path) -> None:
    pixels = noise()
    pixels[0, 10, 10] = 0
    mosaic = open_mosaic(write(tmp_path / "a.tif", pixels, nodata=0))
    assert read_all(mosaic, mosaic.grid)[1].all()


def test_many_files_make_one_mosaic(tmp_path: Path) -> None:
    pixels = noise()
    write(tmp_path / "left.tif", pixels[:, :, :120])
    write(tmp_path / "right.tif", pixels[:, :, 120:], x=500_240)
    for spec in (tmp_path, str(tmp_path / "*.tif"), [tmp_path / "left.tif", tmp_path / "right.tif"]):
        mosaic = open_mosaic(spec)
        assert mosaic.grid.shape == (150, 210)
        assert np.array_equal(read_all(mosaic, mosaic.grid)[0], pixels)
    (tmp_path / "files.txt").write_text("# one a line\nleft.tif\nright.tif\n")
    assert open_mosaic(tmp_path / "files.txt").grid.shape == (150, 210)


def test_a_gap_between_files_is_nodata(tmp_path: Path) -> None:
    pixels = noise()
    write(tmp_path / "left.tif", pixels[:, :, :100])
    write(tmp_path / "right.tif", pixels[:, :, 120:], x=500_240)
    mosaic = open_mosaic(tmp_path)
    valid = read_all(mosaic, mosaic.grid)[1]
    assert not valid[:, 100:120].any()
    assert valid[:, :100].all()
    assert valid[:, 120:].all()


def test_a_zarr_group_is_a_mosaic(tmp_path: Path) -> None:
    pixels = noise()
    reference = open_mosaic(write(tmp_path / "a.tif", pixels))
    with xr.open_dataset(tmp_path / "a.tif", engine="rasterio") as dataset:
        named = dataset.rename(band_data="image").astype("uint8").assign_coords(band=["red", "green", "blue"])
        named["image"].encoding.clear()
        named.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    mosaic = open_mosaic(tmp_path / "a.zarr")
    assert mosaic.band_names == ("red", "green", "blue")
    assert mosaic.grid == reference.grid
    assert np.array_equal(read_all(mosaic, mosaic.grid)[0], pixels)


def test_region_makes_nodata_around_it(tmp_path: Path) -> None:
    import json

    mosaic = open_mosaic(write(tmp_path / "a.tif", noise()))
    box = GeoBox((60, 60), mosaic.grid.affine * Affine.translation(40, 30), CRS).extent
    triangle = list(box.to_crs("EPSG:4326").exterior.coords)[:3]
    region = tmp_path / "region.geojson"
    ring = [list(point) for point in triangle] + [list(triangle[0])]
    region.write_text(
        json.dumps({"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}})
    )
    grid = common_grid([mosaic], region=region)
    assert grid.height < 70
    assert needs_resampling(mosaic, grid) is False
    _, valid = read_all(mosaic, grid, region=region)
    assert 0.4 < valid.mean() < 0.6


def test_another_resolution_and_crs_can_be_asked_for(tmp_path: Path) -> None:
    mosaic = open_mosaic(write(tmp_path / "a.tif", noise()))
    coarse = common_grid([mosaic], resolution=4.0)
    assert abs(coarse.resolution.x) == 4.0
    degrees = common_grid([mosaic], crs="EPSG:4326")
    image, valid = read_all(mosaic, degrees)
    assert degrees.crs == "EPSG:4326"
    assert valid.mean() > 0.8
    assert abs(image[:, valid].mean() - noise().mean()) < 3


def test_bands_by_number_name_or_count(tmp_path: Path) -> None:
    four = open_mosaic(write(tmp_path / "four.tif", noise(bands=4), photometric="minisblack"))
    assert select_bands(four, ["red", "green", "blue"], [4, 1, 2]) == (4, 1, 2)
    with pytest.raises(InputError, match=r"4 bands .* needs 3 .*--bands"):
        select_bands(four, ["red", "green", "blue"], None)
    with pytest.raises(InputError, match="--bands asks for 7"):
        select_bands(four, ["red", "green", "blue"], [1, 2, 7])
    path = write(tmp_path / "named.tif", noise(bands=4), photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        for number, name in enumerate(("nir", "vis-blue", "vis-green", "vis-red"), start=1):
            dataset.set_band_description(number, name)
    assert select_bands(open_mosaic(path), ["red", "green", "blue"], None) == (4, 3, 2)


def test_resolutions_too_far_apart_are_refused(tmp_path: Path) -> None:
    fine = open_mosaic(write(tmp_path / "fine.tif", noise()))
    coarse = open_mosaic(write(tmp_path / "coarse.tif", noise(), res=30.0))
    with pytest.raises(InputError, match=r"pixels of 30 .* 15\.0 times"):
        common_grid([fine, coarse])


def test_a_tile_that_cannot_be_decoded_is_an_error_and_never_nodata(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise())
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 20)
    mosaic = open_mosaic(path)
    shifted = GeoBox((150, 210), Affine(2, 0, 500_000.5, 0, -2, 5_600_000), CRS)
    for grid in (mosaic.grid, shifted):
        reader = GridReader(mosaic=mosaic, grid=grid, bands=(1, 2, 3))
        with pytest.raises(ShortReadError, match=r"a\.tif: rows"):
            reader.read(rows=slice(64, 128), cols=slice(64, 128))
    whole_tiles = GridReader(mosaic=mosaic, grid=mosaic.grid, bands=(1, 2, 3))
    assert whole_tiles.read(rows=slice(0, 50), cols=slice(0, 50))[1].all()


def test_real_archives(shared: Path) -> None:
    naip = shared / "data" / "naip"
    first, last = (open_mosaic(naip / f"m_4709963_se_14_1_{day}.tif") for day in ("20090818", "20190904"))
    grid = common_grid([first, last])
    assert needs_resampling(last, grid)
    assert not needs_resampling(first, grid)
    image, valid = read_all(last, grid)
    with rasterio.open(naip / "m_4709963_se_14_1_20190904.tif") as dataset:
        expected = np.zeros((4, *grid.shape), dtype=np.uint8)
        reproject(
            dataset.read(),
            expected,
            src_transform=dataset.transform,
            src_crs=dataset.crs,
            dst_transform=grid.affine,
            dst_crs=dataset.crs,
            resampling=Resampling.bilinear,
            tolerance=0,
        )
    assert np.array_equal(image[:, valid], expected[:, valid])
    assert valid.mean() > 0.99


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.25])
def test_a_block_of_many_tiles_is_that_of_one_file_and_looks_at_few_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    pixels = noise(height=160, width=160)
    whole = open_mosaic(write(tmp_path / "whole.tif", pixels))
    for y in range(0, 160, 16):
        for x in range(0, 160, 16):
            part = pixels[:, y : y + 16, x : x + 16]
            write(tmp_path / "tiles" / f"{y:03d}_{x:03d}.tif", part, x=500_000 + 2 * x, y=5_600_000 - 2 * y)
    tiles = open_mosaic(tmp_path / "tiles")
    assert tiles.grid == whole.grid
    assert len(tiles.sources) == 100
    grid = GeoBox(whole.grid.shape, whole.grid.affine * Affine.translation(shift, shift), whole.grid.crs)
    opened: list[str] = []
    reading = rasters._read_raster
    monkeypatch.setattr(
        rasters, "_read_raster", lambda source, *more: (opened.append(source.path), reading(source, *more))[1]
    )
    block = {"rows": slice(40, 60), "cols": slice(64, 96)}
    expected, valid = GridReader(mosaic=whole, grid=grid, bands=(1, 2, 3), resampling="nearest").read(**block)
    opened.clear()
    image, image_valid = GridReader(mosaic=tiles, grid=grid, bands=(1, 2, 3), resampling="nearest").read(**block)
    assert np.array_equal(image, expected)
    assert np.array_equal(image_valid, valid)
    assert len(set(opened)) <= (6 if not shift else 20)


def test_an_empty_tile_of_many_is_no_source_and_only_all_of_them_are_refused(tmp_path: Path) -> None:
    for n in range(40):
        pixels = np.zeros((3, 8, 8), np.uint8)
        write(tmp_path / f"t{n:02d}.tif", pixels, x=500_000 + 16 * n, nodata=0)
    with pytest.raises(InputError, match=r"no valid pixel.*each of its 40 files"):
        open_mosaic(tmp_path)
    write(tmp_path / "t33.tif", np.ones((3, 8, 8), np.uint8), x=500_000 + 16 * 33, nodata=0)
    mosaic = open_mosaic(tmp_path)
    assert mosaic.grid.shape == (8, 320)
    assert "t33.tif" in " ".join(source.path for source in mosaic.sources)
    assert len(mosaic.sources) < 40

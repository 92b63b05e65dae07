"""Which pixels count, and what a value is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray

from storage.errors import InputError
from tests.attacks.door import SIDE, centres, cube, image, pixels, planned, read, refused
from tests.attacks.door import holds as assert_holds


def warned(job: Any, *words: str) -> None:
    text = " ".join(job.warnings).lower()
    for word in words:
        assert word.lower() in text, job.warnings


def with_side_car(path: Path, values: NDArray[Any]) -> Path:
    """A raster whose second band has nodata 9 by a file beside it."""
    image(path, values)
    path.with_name(f"{path.name}.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="2"><NoDataValue>9</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    return path


def test_nodata_of_one_band_in_a_side_car_file(tmp_path: Path) -> None:
    values = pixels(dtype="uint16")
    values[1, 10:20] = 9
    path = with_side_car(tmp_path / "a.tif", values)
    with rasterio.open(path) as file:
        assert file.nodatavals == (None, 9.0, None)
    assert_holds(planned(path, bundle="cva"), values, valid=values[1] != 9)


@pytest.mark.parametrize("setting", ["GDAL_PAM_ENABLED=NO", "GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR"])
def test_a_side_car_file_counts_whatever_the_shell_sets_for_gdal(tmp_path: Path, setting: str) -> None:
    path = with_side_car(tmp_path / "a.tif", pixels(dtype="uint16"))
    name, _, value = setting.partition("=")
    command = [sys.executable, "-m", "flows", "info", "--json", str(path)]
    answer = subprocess.run(command, env={**os.environ, name: value}, capture_output=True, check=True)
    assert [band.get("nodata") for band in json.loads(answer.stdout)[0]["bands"]] == [None, 9.0, None]


def test_other_nodata_in_each_band(tmp_path: Path) -> None:
    values = pixels(dtype="float32")
    values[0, :5], values[2, :, :7] = -1, -3
    path = image(tmp_path / "a.tif", values)
    bands = "".join(f'<PAMRasterBand band="{n}"><NoDataValue>{-n}</NoDataValue></PAMRasterBand>' for n in (1, 2, 3))
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    truth = (values[0] != -1) & (values[2] != -3)
    assert_holds(planned(path, bundle="cva"), values, valid=truth)


def test_a_dark_pixel_of_bytes_is_not_missing(tmp_path: Path) -> None:
    values = pixels()
    values[:, :10] = 0
    values[2, 50:] = 0
    assert_holds(planned(image(tmp_path / "a.tif", values, nodata=0)), values, valid=(values != 0).any(axis=0))


def test_nodata_that_no_pixel_can_have_takes_none_away(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", pixels())
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>-9999</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    assert_holds(planned(path), pixels())


def test_nan_in_one_band(tmp_path: Path) -> None:
    values = pixels(dtype="float32")
    values[1, 3:9, 3:9] = np.nan
    assert_holds(planned(image(tmp_path / "a.tif", values), bundle="cva"), values, valid=~np.isnan(values[1]))


def test_a_mask_beside_the_file_and_one_inside(tmp_path: Path) -> None:
    mask = np.add.outer(np.arange(SIDE), np.arange(SIDE)) > 50
    for name, inside in (("inside", True), ("beside", False)):
        path = image(tmp_path / f"{name}.tif", pixels())
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
            file.write_mask(mask)
        assert (tmp_path / f"{name}.tif.msk").exists() is not inside
        assert_holds(planned(path), pixels(), valid=mask)


def test_black_wedges_without_a_tag_are_said_and_settled(tmp_path: Path) -> None:
    wedge = np.add.outer(np.arange(SIDE), np.arange(SIDE)) < 70
    values = pixels()
    values[:, wedge] = 0
    path = image(tmp_path / "a.tif", values)
    warned(planned(path), "black", "--nodata 0")
    assert_holds(planned(path, nodata=0), values, valid=~wedge)


def test_the_collar_of_a_jpeg(tmp_path: Path) -> None:
    values = pixels(side=256) // 4 + 100
    values[:, :64] = 0
    path = image(tmp_path / "a.tif", values, compress="jpeg", photometric="ycbcr", interleave="pixel")
    warned(planned(path), "black", "--nodata 0")


def test_imagery_whose_edge_is_dark_but_not_black_is_left_in_peace(tmp_path: Path) -> None:
    values = pixels()
    values[:, :5] = 1
    job = planned(image(tmp_path / "a.tif", values))
    assert not [warning for warning in job.warnings if "black" in warning]


def test_a_lost_chunk_where_a_fill_value_is_declared(tmp_path: Path) -> None:
    encoding = {"chunks": (3, 32, 32), "_FillValue": np.uint8(0)}
    path = cube(tmp_path / "a.zarr", pixels(), *centres(), encoding=encoding)
    (path / "image" / "c" / "0" / "1" / "1").unlink()
    valid = np.ones((SIDE, SIDE), bool)
    valid[32:64, 32:64] = False
    assert_holds(planned(path), pixels(), valid=valid)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_lost_chunk_without_one(tmp_path: Path, zarr_format: int) -> None:
    path = cube(tmp_path / "a.zarr", pixels(), *centres(), encoding={"chunks": (3, 32, 32)}, zarr_format=zarr_format)
    chunk = path / "image" / ("c/0/2/1" if zarr_format == 3 else "0.2.1")
    chunk.unlink()
    refused("a.zarr", "chunk", "2", mosaic=path)


def test_eight_bits_in_sixteen(tmp_path: Path) -> None:
    assert_holds(planned(image(tmp_path / "a.tif", pixels(dtype="uint16"))), pixels())


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int32", "float32", "float64"])
def test_whole_numbers_of_any_type(tmp_path: Path, dtype: str) -> None:
    values = np.clip(pixels(), 0, 120).astype(dtype)
    assert_holds(planned(image(tmp_path / "a.tif", values)), values)


def test_half_floats_of_zarr(tmp_path: Path) -> None:
    values = pixels(dtype="float16") / np.float16(256)
    assert_holds(planned(cube(tmp_path / "a.zarr", values, *centres()), bundle="cva"), values)


def test_one_bit_a_pixel(tmp_path: Path) -> None:
    values = pixels(1) % 2
    path = image(tmp_path / "a.tif", values, nbits=1)
    # GDAL gives one bit a palette of black and white
    assert_holds(planned(path, bundle="cva"), np.repeat(values * 255, 3, axis=0))


def test_twelve_bits_are_refused_until_they_are_stretched(tmp_path: Path) -> None:
    values = pixels(dtype="uint16") * 20
    path = image(tmp_path / "a.tif", values)
    refused("a.tif", "uint16", "--stretch", mosaic=path)
    job = planned(path, stretch=[200, 3200])
    truth = np.clip((values.astype(float) - 200) * 255 / 3000, 0, 255)
    shown, valid = read(job)
    assert valid.all() and np.abs(shown - truth).max() <= 0.5 + 1e-9


def test_a_negative_value_for_a_bundle_of_bytes(tmp_path: Path) -> None:
    values = pixels(dtype="int16")
    values[0, 70, 70] = -5
    path = image(tmp_path / "a.tif", values)
    try:
        job = planned(path)
    except InputError as error:
        assert "a.tif" in str(error) and "-5" in str(error)
        return
    with pytest.raises(InputError, match=r"a\.tif.*-5"):
        read(job)


def test_scale_and_offset_of_two_dates_of_zarr(tmp_path: Path) -> None:
    physical = pixels(dtype="float64") / 1000
    paths = []
    for name, offset in (("before", 0.0), ("after", -0.1)):
        stored = np.rint((physical - offset) * 10_000).astype("uint16")
        attributes = {"scale_factor": 1e-4, "add_offset": offset}
        path = tmp_path / f"{name}.zarr"
        paths.append(cube(path, stored, *centres(), attrs=attributes))
    job = planned(paths[0], paths[1], before_date="2019-06-01", after_date="2021-06-01", bundle="cva")
    before, after = (read(job, date)[0].astype(float) for date in (0, 1))
    np.testing.assert_allclose(after, before, atol=1e-3 * before.max())


def test_one_date_declares_a_scale_and_the_other_none(tmp_path: Path) -> None:
    paths = [image(tmp_path / f"{name}.tif", pixels(dtype="uint16")) for name in ("a_20190601", "b_20210601")]
    with rasterio.open(paths[1], "r+") as file:
        file.scales = (1e-4,) * 3
    refused("0.0001", "--values", mosaic=paths[0], after=paths[1], bundle="cva")
    assert_holds(planned(paths[0], paths[1], bundle="cva", values="stored"), pixels(dtype="uint16"))


def test_a_damaged_tile_is_an_error_or_nodata(tmp_path: Path) -> None:
    """Deflate is left out: libtiff stops before its checksum, and damage may read as other values."""
    import tifffile

    smooth = (np.add.outer(np.arange(256), np.arange(256)) // 3).astype("uint8")
    for compress in ("zstd", "lzw", "jpeg"):
        path = image(
            tmp_path / f"{compress}.tif",
            np.stack([smooth] * 3),
            compress=compress,
            tiled=True,
            blockxsize=128,
            blockysize=128,
            interleave="pixel",
        )
        with tifffile.TiffFile(path) as file:
            offset, count = file.pages[0].dataoffsets[3], file.pages[0].databytecounts[3]
        data = bytearray(path.read_bytes())
        data[offset + count // 2 : offset + count] = bytes(count - count // 2)
        path.write_bytes(data)
        try:
            _, valid = read(planned(path))
        except (InputError, OSError) as error:
            assert path.name in str(error)
            continue
        assert not valid[128:, 128:].any(), compress


def test_a_file_without_any_valid_pixel_among_others(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    image(folder / "a.tif", pixels(), nodata=0)
    east = rasterio.Affine(10, 0, 500_960, 0, -10, 5_600_000)
    image(folder / "b.tif", np.zeros((3, SIDE, SIDE), "uint8"), nodata=0, transform=east)
    job = planned(folder)
    values, valid = read(job)
    assert valid[:, :SIDE].all() and not valid[:, SIDE:].any()
    np.testing.assert_array_equal(values[:, :, :SIDE], pixels())


def test_nodata_of_one_band_of_bytes(tmp_path: Path) -> None:
    """A value that the file declares for one band alone is meant for that band: no other could confirm it."""
    values = pixels()
    values[1, 10:20] = 9
    path = image(tmp_path / "a.tif", values)
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="2"><NoDataValue>9</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    assert_holds(planned(path), values, valid=values[1] != 9)


def test_nodata_of_floats_written_as_text(tmp_path: Path) -> None:
    values = pixels(dtype="float32")
    values[0, 30:40] = np.finfo("float32").min
    path = image(tmp_path / "a.img", values, driver="ENVI")
    header = path.with_suffix(".hdr")
    header.write_text(header.read_text() + "\ndata ignore value = -3.40282e+38\n")
    assert_holds(planned(path, bundle="cva"), values, valid=values[0] > 0)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_fill_value_of_one_variable(tmp_path: Path, zarr_format: int) -> None:
    import rioxarray  # noqa: F401  registers the .rio accessor

    values = pixels(dtype="uint16")
    values[1, :8] = 65535
    x, y = centres()
    variables = {
        name: xr.DataArray(values[index], dims=("y", "x"), coords={"y": y, "x": x})
        for index, name in enumerate(("red", "green", "blue"))
    }
    dataset = xr.Dataset(variables).rio.write_crs("EPSG:32631")
    dataset["green"].encoding["_FillValue"] = np.uint16(65535)
    path = tmp_path / "a.zarr"
    dataset.to_zarr(path, zarr_format=zarr_format, mode="w", consolidated=False)
    assert_holds(planned(path), values, valid=values[1] != 65535)


def scaled(path: Path, scale: float, offset: float) -> Path:
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,) * file.count, (offset,) * file.count
    return path


def test_tiles_of_one_mosaic_with_other_offsets(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    values = pixels(dtype="uint16") * 10 + 1000
    east = rasterio.Affine(10, 0, 500_960, 0, -10, 5_600_000)
    scaled(image(folder / "a.tif", values), 1e-4, 0.0)
    scaled(image(folder / "b.tif", values + 1000, transform=east), 1e-4, -0.1)
    job = planned(folder, bundle="cva")
    assert_holds(job, np.concatenate([values, values], axis=2))
    warned(job, "b.tif has scale 0.0001 and offset -0.1")
    stored = planned(folder, bundle="cva", values="stored")
    assert_holds(stored, np.concatenate([values, values + 1000], axis=2))
    scaled(folder / "a.tif", 1.0, 0.0)
    refused("b.tif", "--values stored", mosaic=str(folder / "*.tif"), bundle="cva")


def test_scales_by_which_nothing_is_left(tmp_path: Path) -> None:
    values = pixels(dtype="uint16") * 10
    one = image(tmp_path / "before_20190601.tif", values)
    other = scaled(image(tmp_path / "after_20210601.tif", values), 1e-4, 0.0)
    refused("would be 0 … 0", "--values stored", mosaic=one, after=other, bundle="cva", values="physical")


def test_reflectances_and_the_numbers_that_stand_for_them(tmp_path: Path) -> None:
    values = pixels(dtype="uint16") * 10
    one = scaled(image(tmp_path / "before_20190601.tif", values), 1e-4, 0.0)
    other = image(tmp_path / "after_20210601.tif", values * np.float32(1e-4))
    refused("--values physical", mosaic=one, after=other, bundle="cva")
    job = planned(one, other, bundle="cva", values="physical")
    np.testing.assert_allclose(read(job, 0)[0], read(job, 1)[0], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int16", "int32", "int8"])
def test_a_method_without_training_takes_any_type(tmp_path: Path, dtype: str) -> None:
    values = np.clip(pixels(), 0, 120).astype(dtype)
    assert_holds(planned(image(tmp_path / "a.tif", values), bundle="cva"), values)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number(tmp_path: Path, scale: float) -> None:
    refused("scale", mosaic=scaled(image(tmp_path / "a.tif", pixels()), scale, 0.0))


@pytest.mark.parametrize(
    ("dtype", "value"), [("uint8", 255), ("uint16", 65535), ("int16", -9999), ("float32", -9999), ("float32", -3.4e38)]
)
def test_a_value_at_the_edge_that_nobody_declared(tmp_path: Path, dtype: str, value: float) -> None:
    values = pixels(dtype=dtype)
    values[:, :30] = value
    warned(planned(image(tmp_path / "a.tif", values), bundle="cva"), "37% of its edge is exactly", "--nodata")
    declared = planned(image(tmp_path / "b.tif", values), bundle="cva", nodata=value)
    assert "of its edge" not in " ".join(declared.warnings)
    assert read(declared)[1].sum() == SIDE * (SIDE - 30)


def test_tiles_that_a_sparse_file_leaves_out(tmp_path: Path) -> None:
    values, path = pixels(side=128), tmp_path / "a.tif"
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)}
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "SPARSE_OK": True, "compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", count=3, height=128, width=128, dtype="uint8", **place, **tiles) as f:
        f.write(values[:, :64], window=rasterio.windows.Window(0, 0, 128, 64))
    warned(planned(path), "2 of its tiles are not in the file", "--nodata 0")
    assert read(planned(path, nodata=0))[1].sum() == 128 * 64


def test_nodata_of_files_of_one_band_is_that_of_each_file(tmp_path: Path) -> None:
    """In one file all bands share a tag, and 0 may be dark; a file of one band speaks for itself."""
    values = pixels()
    values[0, :10] = 0
    values[:, 50:60] = 0
    folder = tmp_path / "bands"
    folder.mkdir()
    for band, name in zip(values, ("red", "green", "blue"), strict=True):
        image(folder / f"{name}.tif", band[None], nodata=0)
    assert_holds(planned(image(tmp_path / "a.tif", values, nodata=0)), values, valid=values.any(axis=0))
    assert_holds(planned(folder), values, valid=values.all(axis=0))


def test_masks_of_single_bands_beside_the_file(tmp_path: Path) -> None:
    path, mask = image(tmp_path / "a.tif", pixels()), np.full((3, SIDE, SIDE), 255, "uint8")
    mask[1, :10] = 0
    image(tmp_path / "a.tif.msk", mask)
    with rasterio.open(tmp_path / "a.tif.msk", "r+") as file:
        file.update_tags(**{f"INTERNAL_MASK_FLAGS_{band}": "0" for band in (1, 2, 3)})
    assert_holds(planned(path), pixels(), valid=mask[1] > 0)


def test_nodata_that_is_no_number_has_a_key(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", pixels(dtype="float32"))
    assert planned(path, bundle="cva", nodata=float("nan")).parameters["said"] == {"nodata": "nan"}

"""Where pixels lie, however a file says it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from affine import Affine

from storage.imagery.mosaics import open_mosaic
from storage.imagery.rasters import GridReader
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

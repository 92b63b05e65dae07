"""Zarr groups as other people write them, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import InputError
from storage.imagery.groups.coordinates import axis_of
from storage.imagery.mosaics import Mosaic, open_mosaic
from storage.imagery.rasters import GridReader

PIXELS = np.random.default_rng(0).integers(1, 255, (3, 48, 64)).astype(np.uint8)
Y, X = 5_599_995 - 10.0 * np.arange(48), 500_005 + 10.0 * np.arange(64)
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_600_000)


def image(**coordinates: Any) -> xr.DataArray:
    return xr.DataArray(PIXELS, dims=("band", "y", "x"), coords={"y": Y, "x": X, **coordinates}, name="image")


def write(path: Path, array: xr.DataArray | xr.Dataset, *, crs: str | None = "EPSG:32631", version: int = 3) -> Path:
    dataset = array if isinstance(array, xr.Dataset) else array.to_dataset()
    if crs is not None:
        dataset = dataset.rio.write_crs(crs)
    dataset.to_zarr(path, mode="w", zarr_format=version, consolidated=False)  # type: ignore[call-overload]
    return path


def read(mosaic: Mosaic, rows: slice = slice(0, 48), cols: slice = slice(0, 64)) -> np.ndarray:
    reader = GridReader(mosaic=mosaic, grid=mosaic.grid, bands=tuple(range(1, len(mosaic.bands) + 1)))
    return reader.read(rows=rows, cols=cols)[0]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "names",
    [("y", "x"), ("Y", "X"), ("northing", "easting"), ("lat", "lon"), ("latitude", "longitude")],
)
def test_rows_and_columns_by_their_names_in_any_order(tmp_path: Path, names: tuple[str, str], version: int) -> None:
    array = image().rename(dict(zip(("y", "x"), names, strict=True))).transpose(*names, "band")
    array = array.rio.set_spatial_dims(*names[::-1])
    path = write(tmp_path / "a", array, version=version)
    mosaic = open_mosaic(path)
    assert mosaic.grid.affine == TRANSFORM
    assert np.array_equal(read(mosaic), PIXELS)
    assert np.array_equal(read(mosaic, slice(7, 31), slice(20, 50)), PIXELS[:, 7:31, 20:50])


def test_one_time_is_the_date_and_several_are_refused_by_their_number(tmp_path: Path) -> None:
    times = np.array(["2019-06-01T10:30", "2020-06-01"], dtype="datetime64[ns]")
    one = image().expand_dims(time=times[:1])
    mosaic = open_mosaic(write(tmp_path / "one_19990101.zarr", one))
    assert str(mosaic.date) == "2019-06-01 10:30:00"
    assert np.array_equal(read(mosaic), PIXELS)
    assert str(open_mosaic(write(tmp_path / "scalar.zarr", image().assign_coords(time=times[1]))).date)[:4] == "2020"
    with pytest.raises(InputError, match=r"`image` has 2 times \(time\)"):
        open_mosaic(write(tmp_path / "two.zarr", image().expand_dims(time=times)))


def test_arrays_called_like_bands_are_bands(tmp_path: Path) -> None:
    names = ("red", "green", "blue")
    arrays = {name: image()[n].drop_vars("band", errors="ignore") for n, name in enumerate(names)}
    quality = xr.DataArray(np.zeros((48, 64), np.uint8), dims=("y", "x"))
    mosaic = open_mosaic(write(tmp_path / "a.zarr", xr.Dataset({**arrays, "scl": quality})))
    order = [names.index(name) for name in mosaic.band_names]
    assert sorted(order) == [0, 1, 2]
    assert np.array_equal(read(mosaic), PIXELS[order])
    assert any("scl" in doubt for doubt in mosaic.doubts)
    assert mosaic.sources[0].files == (str(tmp_path / "a.zarr"),)


def test_degrees_without_a_crs_are_a_guess_that_is_told(tmp_path: Path) -> None:
    y, x = 50 - 1e-4 * (np.arange(48) + 0.5), 5 + 1e-4 * (np.arange(64) + 0.5)
    array = xr.DataArray(PIXELS, dims=("band", "lat", "lon"), coords={"lat": y, "lon": x}, name="image")
    array.lat.attrs["units"], array.lon.attrs["units"] = "degrees_north", "degrees_east"
    mosaic = open_mosaic(write(tmp_path / "a.zarr", array, crs=None))
    assert str(mosaic.grid.crs) == "EPSG:4326"
    assert any("EPSG:4326" in doubt for doubt in mosaic.doubts)
    metres = image().rename(y="lat", x="lon")
    with pytest.raises(InputError, match="no coordinate reference system"):
        open_mosaic(write(tmp_path / "b.zarr", metres, crs=None))


def _gap(y: np.ndarray) -> np.ndarray:
    return np.r_[y[:20], y[20:] - 600]


def _turned(y: np.ndarray) -> np.ndarray:
    return np.r_[y[:20], y[20:][::-1]]


def _repeat(y: np.ndarray) -> np.ndarray:
    return np.r_[y[:20], y[19:-1]]


def _nan(y: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(y)) == 3, np.nan, y)


def _coarse(y: np.ndarray) -> np.ndarray:
    return (5_599_999.85 - 0.3 * np.arange(len(y))).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_gap, r"coordinate y .* gap: its steps are -10, but -610 from 5599805 to 5599195 at 19 of 48"),
        (_turned, "coordinate y .* not evenly spaced"),
        (_repeat, "repeats a value"),
        (_nan, "coordinate y is nan at 3 of 48"),
        (_coarse, "coordinate y is float32, which holds 5600000 to 0.5 alone"),
    ],
)
def test_coordinates_that_no_grid_gives_are_refused_with_the_place(tmp_path: Path, change: Any, words: str) -> None:
    path = write(tmp_path / "a.zarr", image().assign_coords(y=change(Y)))
    with pytest.raises(InputError, match=words):
        open_mosaic(path)


@settings(max_examples=60, deadline=None)
@given(
    first=st.integers(-17_900, 17_900),
    step=st.sampled_from([1 / 3600, 1e-4, 0.25, 2.5e-4, 1 / 7200, 0.05]),
    size=st.integers(2, 5000),
    sign=st.sampled_from([1, -1]),
)
def test_rounded_coordinates_give_the_grid_that_was_meant(first: int, step: float, size: int, sign: int) -> None:
    edge = first / 100
    exact = edge + sign * step * (np.arange(size) + 0.5)
    rounded = exact.astype(np.float32)
    spacing = float(np.spacing(np.abs(rounded).max()))
    if spacing > step / 2:
        return
    axis = axis_of(rounded, name="x", path="a")
    last = axis.first + axis.step * (size - 1)
    assert abs(axis.first - exact[0]) <= 2 * spacing
    assert abs(last - exact[-1]) <= 2 * spacing
    if size > 100 and spacing * 20 < step:
        assert axis.step == pytest.approx(sign * step, rel=1e-9)
        assert axis.edge == pytest.approx(edge, abs=1e-9)


def test_a_geotransform_that_contradicts_the_coordinates_is_refused(tmp_path: Path) -> None:
    array = image().rio.write_crs("EPSG:32631").rio.write_transform(TRANSFORM)
    assert open_mosaic(write(tmp_path / "same.zarr", array)).grid.affine == TRANSFORM
    cut = array.isel(y=slice(10, 40))
    with pytest.raises(InputError, match="differ by 20 pixels"):
        open_mosaic(write(tmp_path / "stale.zarr", cut.assign_coords(y=cut.y - 100), crs=None))
    with pytest.raises(InputError, match="differ by half a pixel"):
        open_mosaic(write(tmp_path / "corners.zarr", array.assign_coords(y=Y + 5, x=X - 5), crs=None))


def test_a_geotransform_alone_places_an_array(tmp_path: Path) -> None:
    array = image().drop_vars(("y", "x")).rio.write_crs("EPSG:32631").rio.write_transform(TRANSFORM)
    assert open_mosaic(write(tmp_path / "gdal.zarr", array, crs=None)).grid.affine == TRANSFORM
    geozarr = image().drop_vars(("y", "x"))
    geozarr.attrs |= {"proj:code": "EPSG:32631", "spatial:transform": list(TRANSFORM)[:6]}
    mosaic = open_mosaic(write(tmp_path / "geozarr.zarr", geozarr, crs=None))
    assert (str(mosaic.grid.crs), mosaic.grid.affine) == ("EPSG:32631", TRANSFORM)
    with pytest.raises(InputError, match="no coordinate y and x and no geotransform"):
        open_mosaic(write(tmp_path / "nowhere.zarr", image().drop_vars(("y", "x"))))


@pytest.mark.parametrize("dims", [("y", "x"), ("nj", "ni")])
def test_a_curvilinear_grid_is_refused_by_name(tmp_path: Path, dims: tuple[str, str]) -> None:
    latitudes, longitudes = np.meshgrid(np.linspace(50, 51, 64), np.linspace(5, 6, 48))
    dataset = xr.Dataset(
        {"image": (("band", *dims), PIXELS), "lat": (dims, latitudes), "lon": (dims, longitudes)},
    )
    with pytest.raises(InputError, match=r"lat, lon have two dimensions.*curvilinear"):
        open_mosaic(write(tmp_path / "a.zarr", dataset, crs=None))

"""What a run of an input would read: planned as a command plans it, read as its workers read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from numpy.typing import NDArray

from flows.detect.job import Job, resolve
from flows.detect.request import DetectRequest
from flows.run.errors import REFUSALS
from flows.run.planning import planning
from tests.rasters import geotiff

SIDE = 96
PLACE = Affine(10, 0, 500_000, 0, -10, 5_600_000)


def pixels(bands: int = 3, *, dtype: str = "uint8", seed: int = 0, side: int = SIDE) -> NDArray[Any]:
    """(bands, side, side), 20 … 199."""
    return np.random.default_rng(seed).integers(20, 200, (bands, side, side)).astype(dtype)


def image(path: Path, values: NDArray[Any], **profile: Any) -> Path:
    """A GeoTIFF of ten metres a pixel."""
    return geotiff(path, values, **{"transform": PLACE, **profile})


def centres(side: int = SIDE) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates x and y of the pixels of :data:`PLACE`."""
    return PLACE.c + 10 * (np.arange(side) + 0.5), PLACE.f - 10 * (np.arange(side) + 0.5)


def cube(
    path: Path, values: NDArray[Any], x: NDArray[Any], y: NDArray[Any], *, crs: str | None = "EPSG:32631", **more: Any
) -> Path:
    """A Zarr group as xarray writes it; `more`: ``dims``, ``coords``, ``encoding``, ``zarr_format``, ``attrs``."""
    import rioxarray  # noqa: F401  registers the .rio accessor

    dims = more.get("dims", ("band", "y", "x"))
    coords = {"y": y, "x": x, **more.get("coords", {})}
    array = xr.DataArray(values, dims=dims, coords=coords, name="image", attrs=more.get("attrs"))
    if crs is not None:
        array = array.rio.write_crs(crs)
    dataset = array.to_dataset()
    dataset["image"].encoding.update(more.get("encoding", {}))
    dataset.to_zarr(path, zarr_format=more.get("zarr_format", 3), mode="w", consolidated=False)
    return path


def planned(before: Any, after: Any = None, **settings: Any) -> Job:
    """The job of a pair; without a second mosaic that of one with itself, at two dates."""
    if after is None:
        settings = {"before_date": "2019-06-01", "after_date": "2021-06-01", **settings}
    mosaics = {
        "before": str(before) if isinstance(before, Path) else before,
        "after": str(before if after is None else after),
        "output": "never-written",
    }
    request = DetectRequest.model_validate({**mosaics, **settings})
    with planning(request):
        return resolve(request)


def read(job: Job, date: int = 1) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(C, h, w) and (h, w) of a date over the whole grid, as ingest reads it."""
    height, width = job.grid.shape
    return job.readers[date].read(rows=slice(0, height), cols=slice(0, width))


def holds(job: Job, truth: NDArray[Any], *, valid: NDArray[np.bool_] | None = None, date: int = 1) -> None:
    """Assert that a date has these values where these pixels are valid, and that no other pixel is."""
    values, mask = read(job, date)
    where = np.ones(truth.shape[1:], bool) if valid is None else valid
    assert values.shape == truth.shape
    np.testing.assert_array_equal(mask, where)
    np.testing.assert_array_equal(values[:, where].astype(float), truth[:, where].astype(float))


def refused(*words: str, mosaic: Any, after: Any = None, **settings: Any) -> None:
    """Assert that a pair is refused while it is planned, in few lines with these words."""
    with pytest.raises(REFUSALS) as caught:
        planned(mosaic, after, **settings)
    message = str(caught.value)
    assert "This was not foreseen" not in message, message
    assert message.count("\n") < 6, message
    for word in words:
        assert word.lower() in message.lower(), message

"""New stores: empty, with coordinates and georeference, of a series, of one date, of one pair, of all pairs.

What is in them says :mod:`storage.stores.run_store`, which reads and writes their pixels.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from math import gcd
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from zarr.errors import ZarrUserWarning

from storage.geometry import grid_facts
from storage.places.bucket import Location, ObjectPath
from storage.places.publish import sync
from storage.stores.run_store import COMPRESSORS
from tiling.conventions import NODATA, PROBABILITY_SCALE


def create_store(
    path: Location,
    *,
    grid: GeoBox,
    times: Sequence[datetime],
    bands: Sequence[str],
    dtype: str,
    block: int,
    chunk: int = 256,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Create an empty store of a series; it appears at `path` when it is complete.

    Args:
        grid: the grid of all dates.
        times: T ≥ 2 dates, ascending.
        bands: names, in the order of the images' bands.
        dtype: data type of the images: uint8, uint16 or float32.
        block: side of a block, in pixels.
        chunk: side of the inner chunks, in pixels; where blocks are no multiple of it, the largest divisor of both.
        attrs: what else the store should say of itself; JSON values.
    """
    if len(times) < 2 or list(times) != sorted(times):
        raise ValueError(f"a series needs two or more dates in time order, not {list(times)}")
    moments = _moments(times)
    coordinates = {
        "time": moments,
        "band": np.array(list(bands), dtype=object),
        "interval_start": ("interval", moments[:-1]),
        "interval_end": ("interval", moments[1:]),
    }
    with _drafted(path, grid, coordinates, block=block, attrs=attrs) as group:
        _add_images(group, grid, dates=len(times), bands=len(bands), dtype=dtype, block=block, chunk=chunk)
        _add_probability(group, grid, intervals=len(times) - 1, block=block, chunk=chunk)


def create_image_store(
    path: Path,
    *,
    grid: GeoBox,
    time: datetime,
    bands: Sequence[str],
    dtype: str,
    block: int,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Create an empty store of one date: images alone. Arguments as of :func:`create_store`."""
    coordinates = {"time": _moments([time]), "band": np.array(list(bands), dtype=object)}
    with _drafted(path, grid, coordinates, block=block, attrs=attrs) as group:
        _add_images(group, grid, dates=1, bands=len(bands), dtype=dtype, block=block)


def create_probability_store(
    path: Path, *, grid: GeoBox, interval: tuple[datetime, datetime], block: int, attrs: Mapping[str, Any] | None = None
) -> None:
    """Create an empty store of one pair of dates: its probability alone."""
    start, end = interval
    coordinates = {
        "interval_start": ("interval", _moments([start])),
        "interval_end": ("interval", _moments([end])),
    }
    with _drafted(path, grid, coordinates, block=block, attrs=attrs) as group:
        _add_probability(group, grid, intervals=1, block=block)


def create_probability_cube(
    path: Path,
    *,
    grid: GeoBox,
    times: Sequence[datetime],
    intervals: Sequence[tuple[datetime, datetime]],
    block: int,
    attrs: Mapping[str, Any],
    fill: Callable[[Path], None],
) -> None:
    """Create ``change_probability(time, y, x)`` of many pairs, which replaces an older one.

    Args:
        times: ascending, one a pair.
        intervals: (earlier, later).
        fill: called with the draft's path, to bring the shards there.
    """
    coordinates = {
        "time": _moments(times),
        "start": ("time", _moments([start for start, _ in intervals])),
        "end": ("time", _moments([end for _, end in intervals])),
    }
    with _drafted(path, grid, coordinates, block=block, attrs=attrs) as group:
        _add_probability(group, grid, intervals=len(intervals), block=block, dimension="time")
        fill(Path(str(group.store_path.store.root)))  # type: ignore[attr-defined]


def _moments(times: Sequence[datetime]) -> NDArray[np.datetime64]:
    return np.array([np.datetime64(time, "ns") for time in times])


@contextmanager
def _drafted(
    path: Location, grid: GeoBox, coordinates: Mapping[str, Any], *, block: int, attrs: Mapping[str, Any] | None
) -> Iterator[zarr.Group]:
    """A georeferenced group under a draft's name, which takes its place when the arrays are in it."""
    if grid.crs is None:
        raise ValueError("the grid has no CRS")
    with ExitStack() as until_published:
        if isinstance(path, ObjectPath):
            draft = Path(until_published.enter_context(TemporaryDirectory(prefix="store-"))) / path.name
        else:
            for left in (*path.parent.glob(f".{path.name}.draft-*"), *path.parent.glob(f".{path.name}.old-*")):
                shutil.rmtree(left, ignore_errors=True)
            draft = path.with_name(f".{path.name}.draft-{os.getpid()}")
        _empty_store(draft, grid, coordinates, block=block, attrs=attrs)
        yield zarr.open_group(draft, mode="r+")
        with warnings.catch_warnings():
            # without it every xarray.open_zarr warns; with it zarr warns that version 3 has no standard for it yet
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(draft)
        if isinstance(path, ObjectPath):
            _upload_store(draft, path)
            return
        # blocks are durable: so must be what says where they lie. (Those of a cube are, and it can be made again.)
        for folder, inner, files in os.walk(draft):
            if Path(folder).name == "change_probability" and "c" in inner:
                inner.remove("c")
            for name in (*files, "."):
                sync(Path(folder, name))
        old = path.with_name(f".{path.name}.old-{os.getpid()}")
        if path.exists():
            path.replace(old)
        draft.replace(path)
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def _empty_store(
    draft: Path, grid: GeoBox, coordinates: Mapping[str, Any], *, block: int, attrs: Mapping[str, Any] | None
) -> None:
    assert grid.crs is not None
    height, width = grid.shape
    transform = grid.affine
    import rioxarray  # noqa: F401  registers the .rio accessor
    import xarray as xr

    dataset = xr.Dataset(
        coords={
            **coordinates,
            "y": ("y", transform.f + transform.e * (np.arange(height) + 0.5)),
            "x": ("x", transform.c + transform.a * (np.arange(width) + 0.5)),
        },
        attrs={
            **(attrs or {}),
            "block": block,
            "grid": grid_facts(grid),
        },
    )
    dataset = dataset.rio.write_crs(grid.crs.wkt).rio.write_transform(transform)
    dataset.to_zarr(draft, mode="w", zarr_format=3, consolidated=False)


def _upload_store(draft: Path, path: ObjectPath) -> None:
    """Bring a drafted store into a bucket: its root's metadata last, so that it says that the store is whole."""
    root = draft / "zarr.json"
    for file in sorted(entry for entry in draft.rglob("*") if entry.is_file() and entry != root):
        (path / file.relative_to(draft).as_posix()).upload(file)
    (path / root.name).upload(root)


def _add_images(
    group: zarr.Group, grid: GeoBox, *, dates: int, bands: int, dtype: str, block: int, chunk: int = 256
) -> None:
    _add(group, "image", grid, (dates, bands), ("time", "band"), dtype, block=block, chunk=chunk)
    _add(group, "valid", grid, (dates,), ("time",), "bool", block=block, chunk=chunk, fill_value=False)


def _add_probability(
    group: zarr.Group, grid: GeoBox, *, intervals: int, block: int, chunk: int = 256, dimension: str = "interval"
) -> None:
    _add(
        group,
        "change_probability",
        grid,
        (intervals,),
        (dimension,),
        "uint8",
        block=block,
        chunk=chunk,
        fill_value=NODATA,
        _FillValue=NODATA,
        scale_factor=PROBABILITY_SCALE,
        long_name="probability of change between the two dates",
    )


def _add(
    group: zarr.Group,
    name: str,
    grid: GeoBox,
    leading: tuple[int, ...],
    dimensions: tuple[str, ...],
    dtype: str,
    *,
    block: int,
    chunk: int,
    fill_value: int | bool = 0,
    **attributes: Any,
) -> None:
    """An array whose shards each hold one block of one date or interval, with all its bands."""
    chunk = min(chunk, block)
    if block % chunk:
        chunk = gcd(chunk, block)
    depth = (1, *leading[1:])
    array = group.create_array(
        name,
        shape=(*leading, *grid.shape),
        dtype=dtype,
        chunks=(*depth, chunk, chunk),
        shards=(*depth, block, block),
        compressors=COMPRESSORS,
        dimension_names=(*dimensions, "y", "x"),
        fill_value=fill_value,
    )
    array.attrs.update({"grid_mapping": "spatial_ref", "coordinates": "spatial_ref", **attributes})

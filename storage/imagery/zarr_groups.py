"""A Zarr group as a mosaic of one date: described, and read."""

from __future__ import annotations

from typing import Any

import numpy as np
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from numpy.typing import NDArray

from storage.errors import InputError
from storage.imagery.placement import placement_on
from storage.imagery.sources import Header, Source, crs_of, date_of
from storage.places.zarr_access import open_address
from tiling.conventions import DTYPES


def open_group(path: str) -> Header:
    """Describe a Zarr group by its metadata; raises InputError where it cannot be a mosaic of one date."""
    try:
        dataset = _opened(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be opened as a Zarr group: {error}") from error
    candidates = [str(name) for name, variable in dataset.data_vars.items() if {"y", "x"} <= set(variable.dims)]
    name = "image" if "image" in candidates else candidates[0] if len(candidates) == 1 else None
    if name is None:
        raise InputError(f"{path} needs one variable over (y, x), or one named `image`; it has {candidates or 'none'}")
    image = dataset[name]
    if image.ndim > 3 or (image.ndim == 3 and image.dims[1:] != ("y", "x")):
        raise InputError(
            f"{path}: `{name}` has dimensions {image.dims}; a mosaic of one date has (band, y, x) or (y, x)"
        )
    if image.rio.crs is None:
        raise InputError(f"{path}: `{name}` has no coordinate reference system (CF grid mapping)")
    if str(image.dtype) not in DTYPES:
        raise InputError(f"{path} holds {image.dtype}; a mosaic is one of {', '.join(DTYPES)}")
    transform = image.rio.transform(recalc=True)
    placement = placement_on(
        transform, crs_of(image.rio.crs), height=image.sizes["y"], width=image.sizes["x"], path=path
    )
    count = image.sizes.get(str(image.dims[0]), 1) if image.ndim == 3 else 1
    labels = (
        [str(v) for v in image[image.dims[0]].to_numpy()] if image.ndim == 3 and image.dims[0] in image.coords else []
    )
    has_names = bool(labels) and not all(label.lstrip("-").isdigit() for label in labels)
    return Header(
        source=Source(
            path=path,
            grid=placement.grid,
            files=(path,),
            driver="Zarr",
            variable=name,
            image_bands=tuple(range(1, count + 1)),
            flip_y=placement.flip_y,
            flip_x=placement.flip_x,
        ),
        bands=tuple(labels) if has_names else tuple(f"band{n}" for n in range(1, count + 1)),
        dtype=str(image.dtype),
        date=date_of(path, {}),
    )


def read_group(
    source: Source, bands: tuple[int, ...], rows: slice, cols: slice
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Bands (from 1) of a range of a group: image (C, h, w) in its own type and valid (h, w)."""
    dataset = _opened(source.path)
    variable = dataset[source.variable].isel(y=rows, x=cols)
    pixels = variable.to_numpy()
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    nodata = variable.rio.nodata
    if nodata is None or np.isnan(nodata):
        valid = np.ones(pixels.shape[1:], dtype=bool)
    else:
        valid = (pixels != nodata).any(axis=0)
    return np.ascontiguousarray(pixels[[band - 1 for band in bands]]), valid


def _opened(path: str) -> xr.Dataset:
    return xr.open_zarr(open_address(path), chunks=None, decode_coords="all", mask_and_scale=False, consolidated=False)

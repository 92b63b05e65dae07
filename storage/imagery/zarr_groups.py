"""A Zarr group as a mosaic of one date: described, and read."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
import zarr
from numpy.typing import NDArray

from storage.errors import InputError
from storage.imagery.band_names import describe_bands
from storage.imagery.dates import date_of
from storage.imagery.description import NOTHING_SAID, Band, Overrides
from storage.imagery.placement import placement_on
from storage.imagery.sources import Header, Source, is_remote
from storage.imagery.validity import nodata_rule
from storage.imagery.values import require_readable
from storage.imagery.versions import require_part
from storage.imagery.zarr_chunks import chunks_here, require_all_chunks
from storage.places.zarr_access import open_address
from storage.reference_systems import horizontal_crs


def open_group(path: str, said: Overrides = NOTHING_SAID) -> Header:
    """Describe a Zarr group by its metadata.

    Args:
        said: what the user says of it.

    Raises:
        InputError: it cannot be a mosaic of one date, or chunks of it are gone.
    """
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
    require_readable(str(image.dtype), path, what="a mosaic")
    transform = image.rio.transform(recalc=True)
    placement = placement_on(
        transform, horizontal_crs(image.rio.crs.to_wkt()), height=image.sizes["y"], width=image.sizes["x"], path=path
    )
    count = image.sizes.get(str(image.dims[0]), 1) if image.ndim == 3 else 1
    labels = (
        [str(v) for v in image[image.dims[0]].to_numpy()] if image.ndim == 3 and image.dims[0] in image.coords else []
    )
    has_names = bool(labels) and not all(label.lstrip("-").isdigit() for label in labels)
    named, doubts = describe_bands(
        descriptions=labels if has_names else [None] * count,
        colours=[None] * count,
        wavelengths=[None] * count,
        context=path,
        named_by="coordinate",
    )
    bands = tuple(with_values(band, image, said) for band in named)
    rule, odd = nodata_rule(str(image.dtype), [band.nodata for band in bands], alpha=None, mask=False)
    if not is_remote(path):
        require_all_chunks(path, name, rule)
    return Header(
        source=Source(
            path=path,
            grid=placement.grid,
            files=(path,),
            driver="Zarr",
            variable=name,
            image_bands=tuple(range(1, count + 1)),
            bands=bands,
            validity=rule,
            flip_y=placement.flip_y,
            flip_x=placement.flip_x,
        ),
        dtype=str(image.dtype),
        acquired=date_of(path, {}, said.date_pattern),
        facts={"format": "Zarr"},
        doubts=doubts + odd,
    )


def read_group(
    source: Source, bands: tuple[int, ...], rows: slice, cols: slice
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Bands (from 1) of a range of a group: image (C, h, w) in its own type and valid (h, w)."""
    rule = source.validity
    assert rule is not None
    variable = _opened(source.path)[source.variable].isel(y=rows, x=cols)
    pixels = variable.to_numpy()
    for version in source.versions:
        if version.is_local:
            require_part(version, chunk_files(source, rows=rows, cols=cols))
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    pixels = pixels[[number - 1 for number in source.image_bands]]
    here = chunks_here(source.path, source.variable, rule, rows=rows, cols=cols)
    image = np.ascontiguousarray(pixels[[band - 1 for band in bands]])
    if rule.every_band:
        return image, here & rule.of_values(pixels, range(1, len(pixels) + 1))
    return image, here & rule.of_values(image, bands)


def with_values(band: Band, variable: xr.DataArray, said: Overrides) -> Band:
    """A band with the scale, offset and nodata that a variable declares (CF)."""
    attributes = {**variable.encoding, **variable.attrs}
    nodata = attributes.get("_FillValue", attributes.get("missing_value")) if said.nodata is None else said.nodata
    return replace(
        band,
        scale=float(np.asarray(attributes.get("scale_factor", 1)).item()),
        offset=float(np.asarray(attributes.get("add_offset", 0)).item()),
        nodata=None if nodata is None else float(nodata),
    )


def chunk_files(source: Source, *, rows: slice, cols: slice) -> list[str]:
    """Names, below a group, of its variable's metadata and of the files that hold a range of it."""
    array = zarr.open_array(open_address(source.path), path=source.variable, mode="r")
    sides = array.shards or array.chunks
    metadata = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    wanted = [*(slice(0, length) for length in array.shape[:-2]), rows, cols]
    spans = [range(part.start // side, -(-part.stop // side)) for part, side in zip(wanted, sides, strict=True)]
    names = [array.metadata.encode_chunk_key(index) for index in product(*spans)]
    return [f"{source.variable}/{name}" for name in (metadata, *names)]


def _opened(path: str) -> xr.Dataset:
    return xr.open_zarr(open_address(path), chunks=None, decode_coords="all", mask_and_scale=False, consolidated=False)

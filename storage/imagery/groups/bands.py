"""Bands of a Zarr array: their names, wavelengths, scales and nodata, wherever its writer put them.

Writers differ: a coordinate of names, of wavelengths or of numbers (xarray); further coordinates along the bands
(stackstac); attributes with one value a band (rioxarray); `nodata` for `_FillValue` (odc-stac).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from storage.errors import InputError
from storage.imagery.band_names import describe_bands, is_mask_name, micrometres
from storage.imagery.description import Band, NamedBy, Overrides
from storage.imagery.groups.axes import Axes
from storage.imagery.values import require_scales

_NAMES = ("band_name", "band_names", "name", "names", "long_name", "description", "title")
_COMMON_NAMES = ("common_name", "common_names", "eo:common_name")
_WAVELENGTHS = ("wavelength", "wavelengths", "center_wavelength", "central_wavelength", "radiation_wavelength")
_NODATA = ("_FillValue", "missing_value", "nodatavals", "nodata", "_nodata", "no_data")
_SCALES, _OFFSETS = ("scale_factor", "scales"), ("add_offset", "offsets")
_RANGES = ("valid_range", "valid_min", "valid_max")


@dataclass(frozen=True, kw_only=True)
class ArrayBands:
    """What the bands of an array are.

    Attributes:
        bands: those that are imagery.
        numbers: of each of them, its place (from 1) along the array's bands.
        alpha: place of the one that is a mask; None = none is.
        doubts: what was guessed.
    """

    bands: tuple[Band, ...]
    numbers: tuple[int, ...]
    alpha: int | None
    doubts: tuple[str, ...]


def bands_of_array(array: xr.DataArray, axes: Axes, said: Overrides, path: str, *, name: str | None) -> ArrayBands:
    """Describe the bands of an array.

    Args:
        name: of the one band that it is in a group of several arrays; None = it tells itself.

    Raises:
        InputError: a scale or nodata that is no number; an alpha band that it does not have.
    """
    count = array.sizes[axes.bands] if axes.bands is not None else 1
    attributes = {**array.encoding, **array.attrs}
    names = [name] if name is not None else _names(array, axes, count)
    alpha = _alpha(names, said, count, path)
    numbers = tuple(number for number in range(1, count + 1) if number != alpha)
    by: NamedBy = "variable" if name is not None else "coordinate"
    described, doubts = describe_bands(
        descriptions=[names[number - 1] for number in numbers],
        colours=[None] * len(numbers),
        wavelengths=[_wavelengths(array, axes, count)[number - 1] for number in numbers],
        numbers=numbers,
        context=path,
        named_by=by,
    )
    common = _strings_along(array, axes, _COMMON_NAMES)
    if common is not None:
        described = tuple(
            replace(band, name=band.name if band.is_named else word, named_by=by, common_name=word) if word else band
            for band, word in zip(described, (common[number - 1] for number in numbers), strict=True)
        )
        doubts = () if all(common) else doubts
    bands = tuple(
        replace(
            band,
            scale=1.0 if scale is None else scale,
            offset=offset or 0.0,
            nodata=_number(attributes, _NODATA, number, count, path) if said.nodata is None else said.nodata,
        )
        for band, number in zip(described, numbers, strict=True)
        for scale, offset in [[_number(attributes, keys, number, count, path) for keys in (_SCALES, _OFFSETS)]]
    )
    require_scales(bands, path)
    ranges = [f"{key} {np.asarray(attributes[key]).tolist()}" for key in _RANGES if key in attributes]
    if ranges:
        doubts += (f"it declares {', '.join(ranges)}: values beyond are read as they stand; --nodata leaves one out",)
    return ArrayBands(bands=bands, numbers=numbers, alpha=alpha, doubts=doubts)


def _alpha(names: Sequence[str | None], said: Overrides, count: int, path: str) -> int | None:
    if said.alpha is not None:
        if said.alpha > count or (said.alpha and count == 1):
            raise InputError(f"--alpha {said.alpha}: an array of {path} has {count} band{'s' * (count != 1)}")
        return said.alpha or None
    masks = [number for number, name in enumerate(names, start=1) if name and is_mask_name(name)]
    return masks[0] if len(masks) == 1 < count else None


def _names(array: xr.DataArray, axes: Axes, count: int) -> list[str | None]:
    """Names by the coordinate of the bands, by another one along them, by an attribute; None where nothing tells."""
    own = None if axes.bands is None else array.coords.get(axes.bands)
    if own is not None and own.dtype.kind not in "iuf":
        labels = [str(value).strip() for value in own.to_numpy()]
        if not all(label.lstrip("-").isdigit() for label in labels):
            return list(labels)
    if (further := _strings_along(array, axes, _NAMES)) is not None:
        return list(further)
    listed = array.attrs.get("long_name")  # rioxarray's place for the descriptions of a file's bands
    if isinstance(listed, list | tuple) and len(listed) == count:
        return [str(text) if text else None for text in listed]
    return [None] * count


def _along(array: xr.DataArray, axes: Axes, names: Sequence[str]) -> xr.DataArray | None:
    """The coordinate along the bands that has one of these names."""
    if axes.bands is None:
        return None
    named = {str(name).lower(): coordinate for name, coordinate in array.coords.items()}
    found = (named[name] for name in names if name in named)
    return next((coordinate for coordinate in found if coordinate.dims == (axes.bands,)), None)


def _strings_along(array: xr.DataArray, axes: Axes, names: Sequence[str]) -> list[str] | None:
    coordinate = _along(array, axes, names)
    if coordinate is None or coordinate.dtype.kind in "iufM":
        return None
    words = ["" if value is None else str(value).strip() for value in coordinate.to_numpy()]
    return ["" if word.lower() in ("none", "nan") else word for word in words]


def _wavelengths(array: xr.DataArray, axes: Axes, count: int) -> list[float | None]:
    """Micrometres by band, where a coordinate along the bands has them; numbers that only count them are none."""
    coordinate = _along(array, axes, _WAVELENGTHS)
    own = None if axes.bands is None else array.coords.get(axes.bands)
    if coordinate is None and own is not None and own.dtype.kind in "iuf":
        values = own.to_numpy()
        counts = all(value == int(value) and value <= max(count, 100) for value in values)
        coordinate = None if counts and "units" not in own.attrs else own
    if coordinate is None or coordinate.dtype.kind not in "iuf":
        return [None] * count
    unit = str(coordinate.attrs.get("units", ""))
    return [micrometres(float(value), unit) for value in coordinate.to_numpy()]


def _number(attributes: Mapping[str, Any], keys: Sequence[str], number: int, count: int, path: str) -> float | None:
    """What the first of these attributes says of a band (from 1), one number for all or one a band; None = nothing.

    Raises:
        InputError: it is no number, or another count of numbers.
    """
    key = next((key for key in keys if attributes.get(key) is not None), None)
    if key is None:
        return None
    try:
        values = np.asarray(attributes[key]).reshape(-1).astype(np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if len(values) > 1 and len(set(values.tolist())) == 1:
        values = values[:1]
    if len(values) not in (1, count):
        raise InputError(
            f"{path} declares {key} {str(attributes[key])[:80]!r}, which is neither a number nor one for each of "
            f"{count} band{'s' * (count != 1)}" + ("; --nodata says which value is none" if key in _NODATA else "")
        )
    return float(values[0] if len(values) == 1 else values[number - 1])

"""What a stored value is: types, scale and offset, and how values of one file become those that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from storage.errors import InputError
from storage.imagery.description import Band, encoding_words, scales_and_offsets
from tiling.conventions import DTYPES, Values, dequantised

READABLE = ("uint8", "uint16", "float32", "int8", "int16", "int32", "uint32", "int64", "uint64", "float16", "float64")
"""Types of the rasters that are read; complex numbers are not."""

_WHOLE = 1e-3


class ValueRangeError(InputError):
    """A value that the model's type cannot hold."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How values are to be: the type, and the scale and offset that they are then understood by.

    Attributes:
        dtype: one of :data:`tiling.conventions.DTYPES`.
        bands: scale and offset of each band that is read, in their order; None = values stay as they are stored.
        stretch: (low, high): these become the ends of the type's range, 0 … 1 of float32, and what lies beyond is cut
            off; None = nothing is stretched, and a value that the type cannot hold is an error.
        quantised: int8 whose bands declare neither scale nor offset stands for what
            :func:`tiling.conventions.dequantised` makes of it, as in AlphaEarth's embeddings.
    """

    dtype: str
    bands: tuple[tuple[float, float], ...] | None = None
    stretch: tuple[float, float] | None = None
    quantised: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for the key of a run."""
        return {
            "dtype": self.dtype,
            "scale_and_offset": None if self.bands is None else [list(pair) for pair in self.bands],
            "stretch": None if self.stretch is None else list(self.stretch),
            # former runs keep their keys
            **({"quantised": True} if self.quantised else {}),
        }

    def words(self, dtype: str) -> str:
        """What is done with values of type `dtype`, for a person; empty = nothing."""
        if self.stretch is not None:
            top = "1" if self.dtype == "float32" else f"{np.iinfo(self.dtype).max}"
            return f"{dtype}, {self.stretch[0]:g} … {self.stretch[1]:g} stretched to 0 … {top} of {self.dtype}"
        curve = ", sign(v) · (v / 127.5)²" if self.quantised and dtype == "int8" else ""
        return "" if dtype == self.dtype else f"{dtype} read as {self.dtype}{curve}"

    def convert(
        self, image: NDArray[Any], valid: NDArray[np.bool_], bands: Sequence[Band], *, path: str
    ) -> NDArray[Any]:
        """Values of a source in this encoding.

        Args:
            image: (C, h, w) as stored.
            valid: (h, w), True = valid; other pixels become 0.
            bands: what the file says of each of the C bands.
            path: for the message.

        Raises:
            ValueRangeError: a valid value does not fit, naming it.
        """
        linear = self._linear(bands)
        if linear is None and image.dtype == self.dtype:
            return image
        values = image.astype(np.float64)
        if self.quantised and image.dtype == np.int8 and not any_declared(bands):
            values = dequantised(values)
        if linear is not None:
            factors, addends = (np.asarray(part)[:, None, None] for part in linear)
            values = values * factors + addends
        values[:, ~valid] = 0
        if self.dtype == "float32":
            result = values.astype(np.float32)
            if not np.isfinite(result).all():
                raise ValueRangeError(f"{path} holds values up to {np.abs(values).max():g}, too large for float32")
            return np.clip(result, 0, 1) if self.stretch is not None else result
        limits = np.iinfo(self.dtype)
        rounded = np.rint(values)
        if linear is not None:  # physical values of dark water may lie a little below what the type can hold
            return np.clip(rounded, limits.min, limits.max).astype(self.dtype)
        if odd := refusal(values, rounded, self.dtype):
            raise ValueRangeError(f"{path} {odd}")
        return rounded.astype(self.dtype)

    def changes(self, dtype: str, bands: Sequence[Band]) -> bool:
        """Whether values of this type, of bands that declare this, become others."""
        return dtype != self.dtype or self._linear(bands) is not None

    def _linear(self, bands: Sequence[Band]) -> tuple[list[float], list[float]] | None:
        """Factors and addends by band; None where all are 1 and 0."""
        if self.stretch is not None:
            low, high = self.stretch
            top = 1.0 if self.dtype == "float32" else float(np.iinfo(self.dtype).max)
            return [top / (high - low)] * len(bands), [-low * top / (high - low)] * len(bands)
        if self.bands is None:
            return None
        factors = [band.scale / scale for band, (scale, _) in zip(bands, self.bands, strict=True)]
        addends = [(band.offset - offset) / scale for band, (scale, offset) in zip(bands, self.bands, strict=True)]
        if all(factor == 1 for factor in factors) and not any(addends):
            return None
        return factors, addends


def refusal(values: NDArray[Any], rounded: NDArray[Any], dtype: str) -> str:
    """Why values do not fit an integer type; empty where they do."""
    limits = np.iinfo(dtype)
    if not values.size:
        return ""
    low, high = float(values.min()), float(values.max())
    if low < limits.min or high > limits.max:
        return (
            f"holds values from {low:g} to {high:g}, beyond the {limits.min} … {limits.max} of {dtype}: "
            "--stretch LOW,HIGH says which of them become its ends"
        )
    if np.abs(values - rounded).max() > _WHOLE:
        odd = float(values.flat[int(np.abs(values - rounded).argmax())])
        return f"holds {odd:g}, no whole number, for a model of {dtype}: --stretch LOW,HIGH says what becomes its ends"
    return ""


def require_readable(dtype: str, path: str, *, what: str) -> None:
    """Refuse a type that no number of imagery has; raises InputError."""
    if dtype not in READABLE:
        raise InputError(f"{path} holds {dtype}; {what} is one of {', '.join(READABLE)}")


def require_scales(bands: Sequence[Band], path: str) -> None:
    """Refuse a scale by which no value has a meaning: 0, or no number; raises InputError."""
    if odd := [band for band in bands if not band.scale or not isfinite(band.scale) or not isfinite(band.offset)]:
        raise InputError(
            f"{path} declares {encoding_words(odd)} for {', '.join(band.name for band in odd)}: no value has a "
            "meaning; write the right ones, or take them out"
        )


def working_type(dtypes: Sequence[str]) -> str:
    """The one of :data:`tiling.conventions.DTYPES` that holds values of all these types: their own where they agree."""
    kinds = set(dtypes)
    if len(kinds) == 1 and kinds <= set(DTYPES):
        return dtypes[0]
    return "uint16" if kinds <= {"uint8", "uint16"} else "float32"


class _Described(Protocol):
    @property
    def label(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def bands(self) -> Sequence[Band]: ...


def require_quantised(mosaics: Sequence[_Described]) -> None:
    """Refuse to read as quantised what is not int8, or declares a scale that says otherwise; raises InputError."""
    for mosaic in mosaics:
        if mosaic.dtype != "int8" or any_declared(mosaic.bands):
            scale = f" of {encoding_words(mosaic.bands)}" if any_declared(mosaic.bands) else ""
            raise InputError(
                f"--values quantised is of int8 that declares no scale, but {mosaic.label} holds {mosaic.dtype}"
                f"{scale}: leave it out"
            )


def any_declared(bands: Sequence[Band]) -> bool:
    """Whether any band declares that its values stand for others."""
    return any(band.scale != 1 or band.offset for band in bands)


def common_scale(
    dates: Sequence[tuple[str, str, Sequence[Band]]], values: Values | None
) -> tuple[tuple[tuple[float, float], ...] | None, str]:
    """The scale and offset in which all dates are understood, and a word of it for the plan.

    Where all dates declare the same, stored values are comparable as they are. Where they declare others, all are read
    as those of the first.

    Args:
        dates: label, type and bands (those that are read) of each date.
        values: what the user says: ``stored`` leaves scale and offset out, ``physical`` believes them.

    Raises:
        InputError: of two dates of one type one declares a scale and the other none, and the user does not say which.
    """
    label, dtype, first = dates[0]
    own = scales_and_offsets(first)
    if values == "stored" or all(scales_and_offsets(bands) == own for _, _, bands in dates[1:]):
        return None, ""
    for other_label, other_dtype, bands in dates[1:]:
        if values is None and other_dtype == dtype:
            for one, other in zip(first, bands, strict=True):
                if one.scale != other.scale and 1.0 in (one.scale, other.scale):
                    raise InputError(
                        f"{label} declares {encoding_words(first)}, {other_label} "
                        f"{encoding_words(bands)}, and both hold {dtype}: --values physical believes them, "
                        "--values stored takes the numbers as they stand"
                    )
    others = "; ".join(
        f"{other_label} has {encoding_words(bands)}"
        for other_label, _, bands in dates[1:]
        if scales_and_offsets(bands) != own
    )
    return own, f"values are read as those of {label}, {encoding_words(first)}: {others}"

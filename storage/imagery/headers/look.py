"""A look at few pixels of a raster, for what its header leaves open: is a band a mask, is its edge black?

Small windows in fixed places, so that a raster of any size costs the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rasterio import DatasetReader
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from storage.imagery.validity import Validity

_SIDE = 32
_OF_TWO_VALUES = 0.9
"""Share of a mask's pixels that are its lowest or highest value; feathered edges are between."""
_FEW_VALUES = 8
"""Values of what lies under a mask that is 0: one or two, as its writer left them."""
_BLACK = 0.02
"""Share of an edge that is worth a word."""
_NEARLY_BLACK = 8
_OFTEN_NOTHING = (-1, -99, -999, -9999, -99999, -32768, -3000)
_NO_MEASUREMENT = 1e30


def windows(dataset: DatasetReader, *, across: int = 5) -> Iterator[Window]:
    """Small windows over all of a raster, evenly spaced."""
    height, width = dataset.height, dataset.width
    for y in np.linspace(0, max(height - _SIDE, 0), across).astype(int):
        for x in np.linspace(0, max(width - _SIDE, 0), across).astype(int):
            yield Window(x, y, min(_SIDE, width - x), min(_SIDE, height - y))


def looks_like_a_mask(dataset: DatasetReader, number: int) -> bool:
    """Whether a band has nearly nothing but the two values of a mask, or is 0 where the others show nothing.

    Near infrared of open water is 0 too, but there the others show water. Where no pixel can be read it is taken for
    what its header says: ingest says which pixels are missing.
    """
    try:
        values = np.concatenate([dataset.read(number, window=window).ravel() for window in windows(dataset)])
    except Exception:  # GDAL's errors come in many types
        return True
    kind = values.dtype
    present = np.unique(values[np.isfinite(values)] if kind.kind == "f" else values)
    if not present.any():
        return not _shows_something(dataset, number)
    if len(present) <= 2:
        return True
    top = present.max()
    is_full = top == 1 or (kind.kind != "f" and top == np.iinfo(kind).max) or (kind.kind == "f" and top == 255)
    return bool(is_full and np.isin(values, (0, top)).mean() >= _OF_TWO_VALUES)


def _shows_something(dataset: DatasetReader, apart: int) -> bool:
    """Whether the bands but one have the many values of an image."""
    others = [number for number in range(1, dataset.count + 1) if number != apart]
    seen = np.concatenate([dataset.read(others, window=window).ravel() for window in windows(dataset, across=3)])
    return len(np.unique(seen)) > _FEW_VALUES


def has_a_valid_pixel(dataset: DatasetReader, rule: Validity, numbers: tuple[int, ...]) -> bool:
    """Whether any pixel is valid.

    Five by five small windows settle it for any real mosaic; only then is all of it read. True where pixels cannot be
    read.
    """
    try:
        if any(_any_valid(dataset, rule, numbers, window) for window in windows(dataset)):
            return True
        return any(_any_valid(dataset, rule, numbers, window) for _, window in dataset.block_windows(1))
    except Exception:  # GDAL's errors come in many types; ingest reads every pixel and says which ones are missing
        return True


def valid_pixels(
    dataset: DatasetReader,
    rule: Validity,
    image: NDArray,
    numbers: tuple[int, ...],
    bands: tuple[int, ...],
    window: Window,
) -> NDArray[np.bool_]:
    """Validity (h, w) of a window by the rule.

    Args:
        image: (C, h, w), the `bands` (from 1, without alpha) as read.
        numbers: rasterio's numbers of all bands without alpha.
    """
    if rule.every_band and len(bands) != len(numbers):
        valid = rule.of_values(dataset.read(list(numbers), window=window), range(1, len(numbers) + 1))
    else:
        valid = rule.of_values(image, bands)
    if rule.alpha is not None:
        alpha = dataset.read(rule.alpha, window=window)
        valid &= is_opaque(alpha)
    if rule.mask:
        is_common = MaskFlags.per_dataset in dataset.mask_flag_enums[numbers[0] - 1]
        masked = numbers[:1] if is_common else tuple(numbers[band - 1] for band in bands)
        valid &= (dataset.read_masks(list(masked), window=window) > 0).all(axis=0)
    return valid


def is_opaque(alpha: NDArray) -> NDArray[np.bool_]:
    """Where a mask says that pixels count: 0 and NaN say that they do not; 255 of eight bits with a sign is −1."""
    return np.asarray((alpha != 0) & (alpha == alpha))


def has_mask(dataset: DatasetReader) -> bool:
    """Whether a file has a mask of its own, inside or beside it, that is no alpha band."""
    return any(
        MaskFlags.alpha not in flags and (MaskFlags.per_dataset in flags or not flags)
        for flags in dataset.mask_flag_enums  # without any flag a band has a mask of its own
    )


def edge_note(dataset: DatasetReader, rule: Validity, numbers: tuple[int, ...]) -> str:
    """How much of a raster's edge counts and has one value that often means none, in words; empty where little has.

    Exactly black, exactly white, or one of the values that people write where nothing is and forget to declare.
    """
    height, width, side = dataset.height, dataset.width, _SIDE
    places = [(0, x) for x in np.linspace(0, max(width - side, 0), 16).astype(int)]
    places += [(height - 1, x) for _, x in places[:16]]
    sides = np.linspace(0, max(height - side, 0), 16).astype(int)
    edges = [Window(x, y, min(side, width), 1) for y, x in places]
    edges += [Window(x, y, 1, min(side, height)) for x in (0, width - 1) for y in sides]
    try:
        read = [_edge_pixels(dataset, rule, numbers, window) for window in edges]
    except Exception:  # as above
        return ""
    pixels = np.concatenate([part for part, _ in read], axis=1)
    size = sum(count for _, count in read)
    black = float((pixels == 0).all(axis=0).sum()) / size
    is_lossy = dataset.compression is not None and dataset.compression.name.lower() in ("jpeg", "ycbcr_jpeg", "webp")
    nearly = float((pixels <= _NEARLY_BLACK).all(axis=0).sum()) / size if is_lossy else 0.0
    if max(black, nearly) < _BLACK:
        return _other_edge(pixels, size)
    words = f"{black:.0%} of its edge is exactly black (0 in all bands)"
    if nearly > black + _BLACK:
        words += f", {nearly:.0%} nearly so (up to {_NEARLY_BLACK}, as JPEG leaves it)"
    declared = "no nodata is declared" if rule.says_nothing else "that is not declared as nodata"
    return f"{words} and {declared}: read as pixels; --nodata 0 reads it as no data"


def _edge_pixels(
    dataset: DatasetReader, rule: Validity, numbers: tuple[int, ...], window: Window
) -> tuple[NDArray, int]:
    """Valid pixels (C, n) of a window, and how many it has of whatever validity."""
    image = dataset.read(list(numbers), window=window)
    valid = valid_pixels(dataset, rule, image, numbers, tuple(range(1, len(numbers) + 1)), window)
    return image[:, valid], valid.size


def _other_edge(pixels: NDArray, size: int) -> str:
    """A word of the value beside 0 that stands for nothing at an edge, by the pixels (C, n) that count there."""
    alike = pixels[0, (pixels == pixels[:1]).all(axis=0)]
    values, counts = np.unique(alike, return_counts=True)
    ends = () if pixels.dtype.kind == "f" else (np.iinfo(pixels.dtype).min, np.iinfo(pixels.dtype).max)
    is_usual = np.isin(values, [*_OFTEN_NOTHING, *ends]) | (np.abs(values.astype(np.float64)) > _NO_MEASUREMENT)
    share = float(counts[is_usual].max(initial=0)) / size
    if share < _BLACK:
        return ""
    value = values[is_usual][counts[is_usual].argmax()]
    return (
        f"{share:.0%} of its edge is exactly {value:.9g} in all bands and that is not declared as nodata: read as "
        f"pixels; --nodata {value:.9g} reads it as no data"
    )


def _any_valid(dataset: DatasetReader, rule: Validity, numbers: tuple[int, ...], window: Window) -> bool:
    image = dataset.read(list(numbers), window=window)
    return bool(valid_pixels(dataset, rule, image, numbers, tuple(range(1, len(numbers) + 1)), window).any())

"""Chunks that a Zarr array should have and has not: zarr reads them as zeros, without a word."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from storage.errors import InputError
from storage.imagery.validity import Validity
from storage.places.zarr_access import open_address

_LOOKED_AT = 20_000
"""Chunks of a local store that are looked for before a run; the others when they are read."""


class MissingChunkError(InputError):
    """A chunk is not in the store, and nothing says what its pixels are."""


def require_all_chunks(path: str, variable: str, rule: Validity, *, row_axis: int, col_axis: int) -> None:
    """Look for the chunks of a store on a disk.

    Args:
        row_axis, col_axis: which axes of the array are rows and columns.

    Raises:
        MissingChunkError: one is gone, and no fill value is declared that would make it nodata.
    """
    array = _array(path, variable)
    if not _is_declared(rule):
        rows, cols = slice(0, array.shape[row_axis]), slice(0, array.shape[col_axis])
        for key, _ in islice(_chunks(array, rows, cols, row_axis, col_axis), _LOOKED_AT):
            if not _exists(array, key):
                raise _missing(path, key, array)


def chunks_here(
    path: str, variable: str, rule: Validity, *, rows: slice, cols: slice, row_axis: int, col_axis: int
) -> NDArray[np.bool_]:
    """Where a range of an array has chunks: (h, w), False where one is gone and a fill value is declared.

    Args:
        row_axis, col_axis: which axes of the array are rows and columns.

    Raises:
        MissingChunkError: one is gone, and no fill value is declared.
    """
    array = _array(path, variable)
    here = np.ones((rows.stop - rows.start, cols.stop - cols.start), dtype=bool)
    for key, (y, x) in _chunks(array, rows, cols, row_axis, col_axis):
        if not _exists(array, key):
            if not _is_declared(rule):
                raise _missing(path, key, array)
            here[y, x] = False
    return here


def chunk_files(path: str, variable: str, *, rows: slice, cols: slice, row_axis: int, col_axis: int) -> list[str]:
    """Names, below a group, of an array's metadata and of the chunks (or shards) that hold a range of it."""
    array = _array(path, variable)
    metadata = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    keys = [key for key, _ in _chunks(array, rows, cols, row_axis, col_axis)]
    return [f"{variable}/{name}" for name in (metadata, *keys)]


def _array(path: str, variable: str) -> zarr.Array:
    array = zarr.open_group(open_address(path), mode="r")[variable]
    assert isinstance(array, zarr.Array)
    return array


def _chunks(
    array: zarr.Array, rows: slice, cols: slice, row_axis: int, col_axis: int
) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Key of each chunk (or shard) of a range, and where it lies in the range."""
    sides = array.shards or array.chunks
    ranges = [range(-(-size // side)) for size, side in zip(array.shape, sides, strict=True)]
    height, width = sides[row_axis], sides[col_axis]
    ranges[row_axis] = range(rows.start // height, -(-rows.stop // height))
    ranges[col_axis] = range(cols.start // width, -(-cols.stop // width))
    for place in product(*ranges):
        i, j = place[row_axis], place[col_axis]
        y = slice(max(i * height - rows.start, 0), (i + 1) * height - rows.start)
        x = slice(max(j * width - cols.start, 0), (j + 1) * width - cols.start)
        yield array.metadata.encode_chunk_key(place), (y, x)


def _exists(array: zarr.Array, key: str) -> bool:
    return bool(sync((array.store_path / key).exists()))


def _is_declared(rule: Validity) -> bool:
    return any(value is not None for value in rule.nodata)


def _missing(path: str, key: str, array: zarr.Array) -> MissingChunkError:
    return MissingChunkError(
        f"{path}: chunk {array.basename}/{key} is not there: lost, or left out by its writer because all of it is "
        f"{array.fill_value}; declare a _FillValue, or say --nodata {array.fill_value} to have it read as no data"
    )

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


def require_all_chunks(path: str, variable: str, rule: Validity) -> None:
    """Look for the chunks of a store on a disk.

    Raises:
        MissingChunkError: one is gone, and no fill value is declared that would make it nodata.
    """
    array = _array(path, variable)
    if not _is_declared(rule):
        for key, _ in islice(_chunks(array, slice(0, array.shape[-2]), slice(0, array.shape[-1])), _LOOKED_AT):
            if not _exists(array, key):
                raise _missing(path, key, array)


def chunks_here(path: str, variable: str, rule: Validity, *, rows: slice, cols: slice) -> NDArray[np.bool_]:
    """Where a range of an array has chunks: (h, w), False where one is gone and a fill value is declared.

    Raises:
        MissingChunkError: one is gone, and no fill value is declared.
    """
    array = _array(path, variable)
    here = np.ones((rows.stop - rows.start, cols.stop - cols.start), dtype=bool)
    for key, (y, x) in _chunks(array, rows, cols):
        if not _exists(array, key):
            if not _is_declared(rule):
                raise _missing(path, key, array)
            here[y, x] = False
    return here


def _array(path: str, variable: str) -> zarr.Array:
    array = zarr.open_group(open_address(path), mode="r")[variable]
    assert isinstance(array, zarr.Array)
    return array


def _chunks(array: zarr.Array, rows: slice, cols: slice) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Key of each chunk (or shard) of a range, and where it lies in the range."""
    sides = array.shards or array.chunks
    leading = [range(-(-size // side)) for size, side in zip(array.shape[:-2], sides[:-2], strict=True)]
    height, width = sides[-2:]
    for *first, i, j in product(
        *leading,
        range(rows.start // height, -(-rows.stop // height)),
        range(cols.start // width, -(-cols.stop // width)),
    ):
        y = slice(max(i * height - rows.start, 0), (i + 1) * height - rows.start)
        x = slice(max(j * width - cols.start, 0), (j + 1) * width - cols.start)
        yield array.metadata.encode_chunk_key((*first, i, j)), (y, x)


def _exists(array: zarr.Array, key: str) -> bool:
    return bool(sync((array.store_path / key).exists()))


def _is_declared(rule: Validity) -> bool:
    return any(value is not None for value in rule.nodata)


def _missing(path: str, key: str, array: zarr.Array) -> MissingChunkError:
    return MissingChunkError(
        f"{path}: chunk {array.basename}/{key} is not there: lost, or left out by its writer because all of it is "
        f"{array.fill_value}; declare a _FillValue, or say --nodata {array.fill_value} to have it read as no data"
    )

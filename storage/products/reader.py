"""What products are made from: protocols of probability and images, read strip by strip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from storage.errors import IntegrityError
from tiling.conventions import NODATA


class ProbabilityReader(Protocol):
    """Where products read a finished run from; :class:`storage.stores.run_store.RunStore` is one."""

    @property
    def grid(self) -> GeoBox: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def block(self) -> int: ...

    def read_probability(self, *, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """(h, w) uint8: probability × 254, 255 = nodata."""
        ...


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of (h, w) uint8 pixels, row by row, as hex; what a block's worker reports of it."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


CheckBlock = Callable[[slice, slice, NDArray[np.uint8] | None], None]
"""Sees rows, columns and pixels of a block; None where storage has lost it or its bytes cannot be decoded."""


def strips(reader: ProbabilityReader, *, check: CheckBlock | None = None) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """One row of blocks after the other: rows and (h, width) uint8. `check` sees each block before it is used."""
    for y in range(0, reader.height, reader.block):
        rows = slice(y, min(y + reader.block, reader.height))
        strip = np.empty((rows.stop - rows.start, reader.width), dtype=np.uint8)
        for x in range(0, reader.width, reader.block):
            cols = slice(x, min(x + reader.block, reader.width))
            strip[:, cols] = read_checked(reader, rows, cols, check=check)
        yield rows, strip


def read_checked(reader: ProbabilityReader, rows: slice, cols: slice, *, check: CheckBlock | None) -> NDArray[np.uint8]:
    """(h, w) uint8 of one block, shown to `check`; with a check, what storage has lost is nodata for the time being.

    Raises:
        IntegrityError: without a check, what storage has lost or cannot be decoded.
    """
    try:
        pixels = reader.read_probability(rows=rows, cols=cols)
    except IntegrityError:
        if check is None:
            raise
        check(rows, cols, None)
        return np.full((rows.stop - rows.start, cols.stop - cols.start), NODATA, dtype=np.uint8)
    if check is not None:
        check(rows, cols, pixels)
    return pixels


class SeriesReader(ProbabilityReader, Protocol):
    """A finished run with its images; :class:`storage.stores.run_store.RunStore` is one."""

    @property
    def bands(self) -> tuple[str, ...]: ...

    def read_series(self, *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Images (T, C, h, w) and valid (T, h, w)."""
        ...

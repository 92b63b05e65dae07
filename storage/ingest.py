"""Mosaics into the run's store, block by block."""

from __future__ import annotations

import time
from dataclasses import dataclass

from storage.objects import Location
from storage.rasters import GridReader
from storage.store import RunStore


@dataclass(frozen=True, kw_only=True)
class IngestedBlock:
    """What came of one block of one date: valid pixels, and seconds for reading and for writing."""

    valid_pixels: int
    read_s: float
    write_s: float


def ingest_block(
    store: RunStore[Location], reader: GridReader, time_index: int, *, rows: slice, cols: slice
) -> IngestedBlock:
    """Read one block of one date once and write its shard.

    Raises:
        ShortReadError: the raster delivered fewer pixels than it promised; nothing is written then.
    """
    began = time.perf_counter()
    image, valid = reader.read(rows=rows, cols=cols)
    read = time.perf_counter()
    store.write_image(time_index, image, valid, rows=rows, cols=cols)
    written = time.perf_counter()
    return IngestedBlock(valid_pixels=int(valid.sum()), read_s=round(read - began, 4), write_s=round(written - read, 4))

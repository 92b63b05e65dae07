"""Mosaics into the run's store, block by block."""

from __future__ import annotations

from storage.imagery.rasters import GridReader
from storage.places.bucket import Location
from storage.stores.run_store import RunStore


def ingest_block(store: RunStore[Location], reader: GridReader, time_index: int, *, rows: slice, cols: slice) -> int:
    """Read one block of one date once and write its shard; returns its valid pixels.

    Raises:
        ShortReadError: the raster delivered fewer pixels than it promised; nothing is written then.
    """
    image, valid = reader.read(rows=rows, cols=cols)
    store.write_image(time_index, image, valid, rows=rows, cols=cols)
    return int(valid.sum())

"""What a raster's header alone gives away: impossible sizes and truncated files, refused before any pixel is read."""

from __future__ import annotations

import logging
import struct
from math import ceil
from pathlib import Path

import numpy as np
import tifffile
from rasterio import DatasetReader

from storage.errors import InputError

# GDAL's private tags, which tifffile does not always understand, are of no concern here
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_LARGEST_BLOCK = 4 * 2**30
"""Bytes of one tile or strip that we are ready to decode at once."""

_INDEX_BYTES = 6
"""A TIFF lists an offset and a size for each tile or strip, at least 4 and 2 bytes, even where the tile is empty."""


def check_header(dataset: DatasetReader, path: str) -> None:
    """Refuse a file whose header cannot be true of it.

    Args:
        dataset: opened by its header, nothing read.
        path: local path, for its size; other sources are checked as far as the header goes.

    Raises:
        InputError: empty; a size that the file is too small for; a tile too large to decode; bytes that are missing.
    """
    itemsize = max(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    block_height, block_width = dataset.block_shapes[0]
    # a pixel-interleaved tile holds all bands
    block_bytes = block_height * block_width * itemsize * dataset.count
    size = f"{dataset.width:,} × {dataset.height:,} px, {dataset.count} bands of {dataset.dtypes[0]}"
    if block_bytes > _LARGEST_BLOCK:
        raise InputError(
            f"{path}: its header claims {size} in tiles of {block_width} × {block_height} px, "
            f"{block_bytes / 1e9:.1f} GB each: damaged, or to be rewritten with smaller tiles"
        )
    local = Path(path)
    if not local.is_file():
        return
    present = local.stat().st_size
    if dataset.driver == "GTiff":
        blocks = ceil(dataset.height / block_height) * ceil(dataset.width / block_width)
        if blocks * _INDEX_BYTES > present:
            raise InputError(
                f"{path}: its header claims {size} in {blocks:,} tiles, but the file has {present:,} bytes, "
                "too few even for their index: damaged or forged"
            )
        _check_tiff_extent(local, present)
    elif dataset.driver == "ENVI":
        claimed = dataset.width * dataset.height * dataset.count * itemsize
        if claimed > present:
            raise InputError(
                f"{path}: its header claims {size}, {claimed:,} bytes, but the file has {present:,}: truncated"
            )


def _check_tiff_extent(path: Path, present: int) -> None:
    """A truncated COG opens without complaint: its header is at the front, what is missing are its last tiles."""
    try:
        with tifffile.TiffFile(path) as tiff:
            ends = [
                int((offsets + np.asarray(page.databytecounts, dtype=np.uint64)).max())
                for page in tiff.pages
                for offsets in [np.asarray(page.dataoffsets, dtype=np.uint64)]
                if len(offsets)
            ]
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, struct.error) as error:
        raise InputError(f"{path}: its TIFF directory cannot be read ({error}): damaged or truncated") from error
    if ends and max(ends) > present:
        raise InputError(
            f"{path}: its header places pixels up to byte {max(ends):,}, but the file ends at {present:,}: truncated"
        )

"""What a raster's header alone gives away: impossible sizes and truncated files, refused before any pixel is read."""

from __future__ import annotations

import logging
import struct
from math import ceil
from pathlib import Path

import numpy as np
import tifffile
from rasterio import DatasetReader
from rasterio.enums import Compression, Interleaving

from storage.errors import InputError

# GDAL's private tags, which tifffile does not always understand, are of no concern here
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_LARGEST_BLOCK = 4 * 2**30
"""Bytes of one tile or strip that we are ready to decode at once."""

_KEPT_BYTES = 64 * 2**20
"""What GDAL keeps of decoded tiles on a worker (``GDAL_CACHEMAX`` in rasters.py)."""

_RUN_BLOCK = 2048
"""Side of a block of a run, if nothing else is asked for."""

_INDEX_BYTES = 6
"""A TIFF lists an offset and a size for each tile or strip, at least 4 and 2 bytes, even where the tile is empty."""


def check_header(dataset: DatasetReader, path: str) -> int:
    """Refuse a file whose header cannot be true of it.

    Args:
        dataset: opened by its header, nothing read.
        path: local path, for its size; other sources are checked as far as the header goes.

    Returns:
        how many of a local TIFF's tiles or strips are not in it, because its writer left them out.

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
        return 0
    present = local.stat().st_size
    if dataset.driver == "GTiff":
        # GDAL gives one strip row by row, and calls each of them a block
        rows = max(block_height, _rows_a_strip(local)) if block_height == 1 else block_height
        blocks = ceil(dataset.height / rows) * ceil(dataset.width / block_width)
        if blocks * _INDEX_BYTES > present:
            raise InputError(
                f"{path}: its header claims {size} in {blocks:,} tiles, but the file has {present:,} bytes, "
                "too few even for their index: damaged or forged"
            )
        return _check_tiff_extent(local, present)
    if dataset.driver == "ENVI":
        claimed = dataset.width * dataset.height * dataset.count * itemsize
        if claimed > present:
            raise InputError(
                f"{path}: its header claims {size}, {claimed:,} bytes, but the file has {present:,}: truncated"
            )
    return 0


def decoding_note(dataset: DatasetReader, path: str) -> str:
    """What it costs that a file is compressed in pieces too large to be kept once they are decoded; empty if it is not.

    A block of a run reads about 2048 × 2048 px, and decodes every piece that it touches.
    """
    if dataset.compression in (None, Compression.none):
        return ""
    block_height, block_width = dataset.block_shapes[0]
    is_scanned = block_height == 1 and (rows := _rows_a_strip(Path(path))) == dataset.height > 1
    if is_scanned:  # GDAL gives one strip row by row, and begins anew wherever it has to go back
        block_height = rows
    bands = dataset.count if dataset.interleaving == Interleaving.pixel else 1
    piece = block_height * block_width * np.dtype(dataset.dtypes[0]).itemsize * bands
    if piece <= _KEPT_BYTES and not is_scanned:
        return ""
    touched = ceil(block_height / _RUN_BLOCK) * ceil(block_width / _RUN_BLOCK)
    if touched < 2:
        return ""
    whole = "all of it" if (block_height, block_width) == dataset.shape else f"{block_width} × {block_height} px"
    return (
        f"{path} is compressed in pieces of {piece / 1e6:,.0f} MB ({whole}), too large to be kept: each is decoded "
        f"about {touched:,} times; tiles cost that once (gdal_translate -co TILED=YES -co COMPRESS=DEFLATE)"
    )


def _rows_a_strip(path: Path) -> int:
    """Rows of a strip of a local TIFF: of a strip as tall as the file GDAL says that it has one."""
    if not path.is_file():
        return 1
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return int(min(page.rowsperstrip, page.imagelength))
    except (tifffile.TiffFileError, AttributeError, ValueError, IndexError, KeyError, TypeError, struct.error):
        return 1


def _check_tiff_extent(path: Path, present: int) -> int:
    """How many tiles of its first image are absent; a truncated file is refused.

    A truncated COG opens without complaint: its header is at the front, what is missing are its last tiles.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            absent = int((np.asarray(tiff.pages.first.databytecounts) == 0).sum())
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
    return absent

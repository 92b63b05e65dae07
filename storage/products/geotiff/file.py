"""The head of a COG: a TIFF's header and its directories, finest level first, before any tile."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile

from storage.products.geotiff.layer import Layer
from storage.products.geotiff.layout import CogLayout
from storage.products.geotiff.tiles import TILE_BYTE_COUNTS, TILE_OFFSETS

MOST_CLASSIC = 2**32 - 1
"""Bytes of the largest classic TIFF: its offsets have 32 bits. What is larger becomes a BigTIFF."""

_SUBFILE, _WIDTH, _HEIGHT, _METADATA, _GEOTIFF = 254, 256, 257, 42112, {33550, 33922, 34264, 34735, 34736, 34737}
_LONG, _LONG8 = 4, 16
_REDUCED = 1


@dataclass(frozen=True, kw_only=True)
class TileTable:
    """Where the tiles of one level lie.

    Attributes:
        offsets: (rows, columns) uint64, bytes from the first byte after the head.
        sizes: (rows, columns) uint32, bytes.
    """

    offsets: NDArray[np.uint64]
    sizes: NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class _Tag:
    """One entry of a directory: TIFF's number of its type, how many values, and their bytes, little-endian."""

    type: int
    count: int
    content: bytes


def make_head(
    layer: Layer, *, grid: GeoBox, layout: CogLayout, tables: Sequence[TileTable], most_classic: int = MOST_CLASSIC
) -> bytes:
    """The bytes of a COG before its first tile.

    Directories come first, each with its values; then the tables of all tiles, which are long and which a reader needs
    for one level alone.

    Args:
        tables: for each level, finest first.
        most_classic: bytes of the largest file that is a classic TIFF.
    """
    common = _common_tags(layer, grid, tile=layout.tile)
    data = sum(int(table.sizes.sum(dtype=np.uint64)) for table in tables)
    big = len(_pack(common, layout, tables, first_tile=0, big=False)) + data > most_classic
    length = len(_pack(common, layout, tables, first_tile=0, big=big))
    return _pack(common, layout, tables, first_tile=length, big=big)


def _common_tags(layer: Layer, grid: GeoBox, *, tile: int) -> dict[int, _Tag]:
    """The tags that GDAL gives a file of one pixel with this place, type and description."""
    profile = {
        "driver": "GTiff",
        "height": 1,
        "width": 1,
        "count": 1,
        "dtype": layer.dtype,
        "nodata": layer.nodata,
        "crs": str(grid.crs),
        "transform": grid.affine,
        "tiled": True,
        "blockxsize": tile,
        "blockysize": tile,
        "compress": "DEFLATE",
        "sparse_ok": True,
        "endianness": "LITTLE",
    }
    # a side-car would hold what the file itself does not, and would be left behind
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.scales, dataset.offsets = (layer.scale,), (0.0,)
            dataset.set_band_description(1, layer.description)
            dataset.units = ("1",)
            dataset.update_tags(**layer.tags)
        content = bytes(memory.getbuffer())
    with tifffile.TiffFile(BytesIO(content)) as tiff:
        return {
            tag.code: _Tag(
                type=int(tag.dtype),
                count=tag.count,
                content=content[tag.valueoffset : tag.valueoffset + tag.valuebytecount],
            )
            for tag in tiff.pages.first.tags
        }


def _pack(
    common: Mapping[int, _Tag], layout: CogLayout, tables: Sequence[TileTable], *, first_tile: int, big: bool
) -> bytes:
    """The head where the tiles begin at `first_tile`; its length does not depend on that."""
    directories = [
        _directory(common, layout, tables[level], level, first_tile=first_tile, big=big)
        for level in range(len(layout.levels))
    ]
    inline, entry, count_bytes = (8, 20, 8) if big else (4, 12, 2)
    end = 16 if big else 8
    starts, places = [], {}
    for level, tags in enumerate(directories):
        starts.append(end)
        end = _aligned(end + count_bytes + entry * len(tags) + inline)
        for code, tag in tags.items():
            if len(tag.content) > inline and code not in (TILE_OFFSETS, TILE_BYTE_COUNTS):
                places[level, code], end = end, _aligned(end + len(tag.content))
    for level, tags in enumerate(directories):
        for code in (TILE_OFFSETS, TILE_BYTE_COUNTS):
            if len(tags[code].content) > inline:
                places[level, code], end = end, _aligned(end + len(tags[code].content))

    pointer = "<Q" if big else "<I"
    head = bytearray(end)
    start = struct.pack("<2sHHH", b"II", 43, 8, 0) if big else struct.pack("<2sH", b"II", 42)
    head[: len(start) + inline] = start + struct.pack(pointer, starts[0])
    for level, (position, tags) in enumerate(zip(starts, directories, strict=True)):
        struct.pack_into("<Q" if big else "<H", head, position, len(tags))
        position += count_bytes
        for code in sorted(tags):
            tag = tags[code]
            struct.pack_into("<HHQ" if big else "<HHI", head, position, code, tag.type, tag.count)
            place = places.get((level, code), position + entry - inline)
            head[place : place + len(tag.content)] = tag.content
            if (level, code) in places:
                struct.pack_into(pointer, head, position + entry - inline, place)
            position += entry
        struct.pack_into(pointer, head, position, starts[level + 1] if level + 1 < len(starts) else 0)
    return bytes(head)


def _directory(
    common: Mapping[int, _Tag], layout: CogLayout, table: TileTable, level: int, *, first_tile: int, big: bool
) -> dict[int, _Tag]:
    height, width = layout.levels[level]
    left_out = _GEOTIFF | {_METADATA} if level else set()
    tags = {code: tag for code, tag in common.items() if code not in left_out}
    if level:
        tags[_SUBFILE] = _long(_REDUCED)
    tags[_WIDTH], tags[_HEIGHT] = _long(width), _long(height)
    offsets = (table.offsets + np.uint64(first_tile)).astype("<u8" if big else "<u4")
    tags[TILE_OFFSETS] = _Tag(type=_LONG8 if big else _LONG, count=offsets.size, content=offsets.tobytes())
    tags[TILE_BYTE_COUNTS] = _Tag(type=_LONG, count=table.sizes.size, content=table.sizes.astype("<u4").tobytes())
    return tags


def _long(value: int) -> _Tag:
    return _Tag(type=_LONG, count=1, content=struct.pack("<I", value))


def _aligned(position: int) -> int:
    return -(-position // 8) * 8

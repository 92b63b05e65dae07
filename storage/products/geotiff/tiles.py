"""The part of a COG that one plate makes: compressed tiles, which a join copies, and few pixels for coarser levels.

A part is one string of bytes: a header, whose length the layout tells, with the sizes of all tiles and a checksum of
each slice; then a slice a level with its tiles row by row, finest first; then the pixels of the next level as they are.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

import numpy as np
import rasterio
import tifffile
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from storage.errors import IntegrityError
from storage.places.bucket import Location, ObjectPath
from storage.products.geotiff.layer import Layer
from storage.products.geotiff.layout import CogLayout

DEFLATE_LEVEL = 5
"""Of GDAL's libdeflate, which comes with rasterio: the bytes do not depend on the zlib of a machine. Level 6 takes
twice the time for 2 % fewer bytes."""

TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325
"""Tags of a TIFF: where each tile lies, and how many bytes it has."""

_IDENTITY = struct.Struct("<8s8s8sqQQIIQ")
_FIELDS = ("kind", "type", "overviews", "nodata", "height", "width", "plate", "tile", "number")
_KIND = b"COGPART1"
_CHECKSUM = struct.Struct("<I")


class PartBytes(Protocol):
    """Where the bytes of a part lie; as text it names the place, for messages."""

    def read(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`; fewer where the part ends before. Threads may call it at once."""
        ...


@dataclass(frozen=True)
class StoredPart:
    """A part that is a file or an object of its own; IntegrityError where it is gone."""

    path: Location

    def __str__(self) -> str:
        return str(self.path)

    def read(self, start: int, stop: int) -> bytes:
        try:
            if isinstance(self.path, ObjectPath):
                return self.path.read_range(start, stop)
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                return file.read(stop - start) or b""
        except FileNotFoundError:
            raise IntegrityError(f"{self.path}, a part of a COG, is missing") from None


@dataclass(frozen=True, kw_only=True)
class CogPart:
    """What one plate gives to a COG.

    Attributes:
        identity: what tells it from the parts of other plates, images and layers.
        tiles: for each inner level the DEFLATE streams of the plate's tiles, row by row.
        coarse: pixels of the first level that is not inner, row by row, little-endian.
    """

    identity: bytes
    tiles: tuple[tuple[bytes, ...], ...]
    coarse: bytes

    def to_bytes(self) -> bytes:
        """The part as it is kept, to be read by :class:`PartHeader` and by slices."""
        slices = [*(b"".join(level) for level in self.tiles), self.coarse]
        sizes = np.array([len(tile) for level in self.tiles for tile in level], dtype="<u4")
        checks = np.array([zlib.crc32(piece) for piece in slices], dtype="<u4")
        header = self.identity + sizes.tobytes() + checks.tobytes()
        return b"".join([header, _CHECKSUM.pack(zlib.crc32(header)), *slices])


@dataclass(frozen=True, kw_only=True)
class PartHeader:
    """The header of a part.

    Attributes:
        sizes: for each inner level (rows, columns) of the plate's tiles: bytes of each.
        bounds: where each slice begins, and where the last one ends.
        checks: CRC-32 of each slice.
    """

    sizes: tuple[NDArray[np.uint32], ...]
    bounds: tuple[int, ...]
    checks: tuple[int, ...]

    @classmethod
    def read(cls, source: PartBytes, layer: Layer, layout: CogLayout, number: int) -> PartHeader:
        """The header of the part of plate `number`.

        Raises:
            IntegrityError: it is truncated, damaged, or the part of another plate, image or layer; names the source.
        """
        plate = layout.plates[number]
        shapes = [
            tuple(side.stop - side.start for side in layout.tiles_in(plate, level)) for level in range(layout.inner)
        ]
        counts = [down * across for down, across in shapes]
        length = _IDENTITY.size + 4 * (sum(counts) + layout.inner + 1)
        header = read_slice(source, 0, length + _CHECKSUM.size)
        expected = _identity(layer, layout, number)
        if header[: len(expected)] != expected:
            pairs = zip(_FIELDS, _IDENTITY.unpack_from(header), _IDENTITY.unpack(expected), strict=True)
            clashes = [f"{name} {_words(there)}, not {_words(here)}" for name, there, here in pairs if there != here]
            raise IntegrityError(f"{source} is no part of this COG: {'; '.join(clashes)}")
        if zlib.crc32(header[:length]) != _CHECKSUM.unpack_from(header, length)[0]:
            raise IntegrityError(f"{source} is damaged: the header of this part of a COG is not the one written")
        numbers = np.frombuffer(header, dtype="<u4", offset=len(expected))
        ends = np.cumsum(counts)
        sizes = [
            numbers[end - count : end].reshape(shape) for end, count, shape in zip(ends, counts, shapes, strict=True)
        ]
        height, width = layout.shape_in(plate, layout.inner)
        bytes_of = [
            *(int(level.sum(dtype=np.int64)) for level in sizes),
            height * width * np.dtype(layer.dtype).itemsize,
        ]
        return cls(
            sizes=tuple(sizes),
            bounds=tuple(int(bound) for bound in np.cumsum([len(header), *bytes_of])),
            checks=tuple(int(check) for check in numbers[ends[-1] : ends[-1] + layout.inner + 1]),
        )


def read_slice(source: PartBytes, start: int, stop: int, *, check: int | None = None) -> bytes:
    """Bytes of a part, all of them; IntegrityError where it ends before, or where their CRC-32 is not `check`."""
    content = source.read(start, stop)
    if len(content) != stop - start:
        raise IntegrityError(f"{source}, a part of a COG, is truncated: it ends before byte {stop}")
    if check is not None and zlib.crc32(content) != check:
        raise IntegrityError(
            f"{source} is damaged: bytes {start} to {stop} of this part of a COG are not those written"
        )
    return content


def encode(pixels: NDArray[Any], layer: Layer, *, layout: CogLayout, number: int) -> CogPart:
    """Compress what a plate gives to a COG; the same pixels give the same bytes.

    Args:
        pixels: (h, w) of the layer's type, all of plate `number`.

    Raises:
        ValueError: the pixels have another shape or type.
    """
    plate = layout.plates[number]
    if pixels.shape != plate.shape or pixels.dtype != np.dtype(layer.dtype):
        raise ValueError(
            f"plate {plate.name} has {plate.shape[0]} × {plate.shape[1]} px of {layer.dtype}, "
            f"not {' × '.join(map(str, pixels.shape))} of {pixels.dtype}"
        )
    levels = []
    for _ in range(layout.inner):
        levels.append(cut_tiles(pixels, layer, tile=layout.tile))
        pixels = layer.halved(pixels)
    streams = iter(deflate(np.concatenate(levels)))
    return CogPart(
        identity=_identity(layer, layout, number),
        tiles=tuple(tuple(next(streams) for _ in level) for level in levels),
        coarse=pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes(),
    )


def cut_tiles(pixels: NDArray[Any], layer: Layer, *, tile: int) -> NDArray[Any]:
    """(n, tile, tile): the tiles of (h, w) pixels, row by row; what lies beyond the pixels is nodata."""
    height, width = pixels.shape
    down, across = -(-height // tile), -(-width // tile)
    if (down * tile, across * tile) != (height, width):
        around = ((0, down * tile - height), (0, across * tile - width))
        pixels = np.pad(pixels, around, constant_values=layer.nodata)
    return pixels.reshape(down, tile, across, tile).swapaxes(1, 2).reshape(-1, tile, tile)


def deflate(tiles: NDArray[Any]) -> list[bytes]:
    """The DEFLATE stream (zlib format) of each of (n, tile, tile) tiles, little-endian, as a TIFF holds it."""
    count, tile, _ = tiles.shape
    profile = {
        "driver": "GTiff",
        "height": count * tile,
        "width": tile,
        "count": 1,
        "dtype": tiles.dtype,
        "tiled": True,
        "blockxsize": tile,
        "blockysize": tile,
        "compress": "DEFLATE",
        "zlevel": DEFLATE_LEVEL,
        "endianness": "LITTLE",
        # without a place GDAL warns that there is none
        "transform": Affine.scale(2),
    }
    with rasterio.Env(GDAL_NUM_THREADS=1, GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(tiles.reshape(count * tile, tile), 1)
        content = bytes(memory.getbuffer())
    with tifffile.TiffFile(BytesIO(content)) as tiff:
        tags = tiff.pages.first.tags
        offsets, sizes = tags[TILE_OFFSETS].value, tags[TILE_BYTE_COUNTS].value
    return [content[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]


def _identity(layer: Layer, layout: CogLayout, number: int) -> bytes:
    plates = layout.plates
    numbers = (layer.nodata, plates.height, plates.width, plates.size, layout.tile, number)
    return _IDENTITY.pack(_KIND, layer.dtype.encode(), layer.overviews.encode(), *numbers)


def _words(value: bytes | int) -> str:
    return repr(value.rstrip(b"\0").decode("latin-1")) if isinstance(value, bytes) else str(value)

"""A COG written by one process: cut into plates, each encoded, all joined."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from storage.places.bucket import Location
from storage.places.publish import scratch_of
from storage.products.geotiff.join import join_cog
from storage.products.geotiff.layer import Layer
from storage.products.geotiff.layout import TILE, CogLayout
from storage.products.geotiff.tiles import encode
from storage.products.plate_sums import CogResult, PlateSums, add_up
from storage.products.plates import PLATE, Plate, Plates
from storage.products.reader import CheckBlock, ProbabilityReader, strips
from tiling.conventions import NODATA, PROBABILITY_SCALE

Strips = Iterable[tuple[slice, NDArray[Any]]]
"""Rows and (h, width) pixels, from the top down, all of a grid."""


def probability_layer(tags: Mapping[str, str] | None = None) -> Layer:
    """The change probability: uint8 scaled by 1/254, nodata 255, overviews that leave nodata out.

    Args:
        tags: what else the file says of itself.
    """
    return Layer(
        dtype="uint8", nodata=NODATA, description="change probability", scale=PROBABILITY_SCALE, tags=tags or {}
    )


def write_cog(
    reader: ProbabilityReader,
    path: Location,
    *,
    check: CheckBlock | None = None,
    conclude: Callable[[], None] | None = None,
    tags: Mapping[str, str] | None = None,
    plate: int = PLATE,
    tile: int = TILE,
) -> CogResult:
    """Write the probability as a COG, as :func:`probability_layer` describes it.

    Args:
        check: sees each block as it was read.
        conclude: called when all blocks were seen, before the file gets its name; raises to stop it.
        tags: what else the file says of itself.
        plate, tile: sides in pixels.

    Raises:
        IntegrityError: what was written is not a valid COG.
    """
    sums: list[PlateSums] = []
    _write(
        path,
        probability_layer(tags),
        grid=reader.grid,
        strips=strips(reader, check=check),
        conclude=conclude,
        plate=plate,
        tile=tile,
        sums=sums,
    )
    return add_up(sums)


def write_layer(
    path: Location,
    layer: Layer,
    *,
    grid: GeoBox,
    strips: Strips,
    conclude: Callable[[], None] | None = None,
    plate: int = PLATE,
    tile: int = TILE,
) -> None:
    """Write a COG strip by strip.

    Args:
        conclude: called when all strips were seen, before the file gets its name; raises to stop it.
        plate, tile: sides in pixels.

    Raises:
        IntegrityError: what was written is not a valid COG.
    """
    _write(path, layer, grid=grid, strips=strips, conclude=conclude, plate=plate, tile=tile, sums=None)


def _write(
    path: Location,
    layer: Layer,
    *,
    grid: GeoBox,
    strips: Strips,
    conclude: Callable[[], None] | None,
    plate: int,
    tile: int,
    sums: list[PlateSums] | None,
) -> None:
    """`sums`: where the sums of each plate are put, if they are wanted."""
    plates = Plates(height=grid.height, width=grid.width, size=plate)
    layout = CogLayout(plates=plates, tile=tile)

    def make(rows: NDArray[Any], plate: Plate) -> tuple[bytes, PlateSums | None]:
        pixels = rows[:, plate.cols]
        part = encode(pixels, layer, layout=layout, number=plate.number).to_bytes()
        return part, PlateSums.of(pixels) if sums is not None else None

    with TemporaryFile(dir=scratch_of(path)) as file, ThreadPoolExecutor(_cores()) as pool:
        parts: list[_PartInFile] = []
        for row, rows in enumerate(_rows_of_plates(strips, plates)):
            of_row = [plates[row * plates.across + col] for col in range(plates.across)]
            for one, (content, of_plate) in zip(of_row, pool.map(partial(make, rows), of_row), strict=True):
                start = parts[-1].stop if parts else 0
                file.write(content)
                parts.append(_PartInFile(file=file, start=start, stop=start + len(content), name=f"{path} {one.name}"))
                if sums is not None and of_plate is not None:
                    sums.append(of_plate)
        file.flush()
        join_cog(path, layer, grid=grid, parts=parts.__getitem__, conclude=conclude, plate=plate, tile=tile)


@dataclass(frozen=True, kw_only=True)
class _PartInFile:
    """The part of a plate among others in one temporary file, bytes `start` to `stop`."""

    file: IO[bytes]
    start: int
    stop: int
    name: str

    def __str__(self) -> str:
        return self.name

    def read(self, start: int, stop: int) -> bytes:
        start, stop = self.start + start, min(self.start + stop, self.stop)
        return os.pread(self.file.fileno(), max(stop - start, 0), start)


def _rows_of_plates(strips: Strips, plates: Plates) -> Iterator[NDArray[Any]]:
    """(h, width) pixels, one row of plates after the other, whatever the strips."""
    rows: NDArray[Any] | None = None
    filled = top = 0
    for _, strip in strips:
        while len(strip):
            height = min(plates.size, plates.height - top)
            if not filled and len(strip) == height:  # nothing to be put together
                yield strip
                top += height
                break
            if rows is None or len(rows) != height:
                rows = np.empty((height, plates.width), dtype=strip.dtype)
            count = min(height - filled, len(strip))
            rows[filled : filled + count] = strip[:count]
            filled, strip = filled + count, strip[count:]
            if filled == height:
                yield rows
                filled, top = 0, top + height
    assert top == plates.height, f"strips end at row {top + filled} of {plates.height}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

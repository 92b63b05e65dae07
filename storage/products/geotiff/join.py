"""The join of a COG: the parts of all plates become one file. What it does grows with plates, and with compressed bytes
to be copied; of pixels it sees those of the levels that are coarser than any tile of a plate, 1 in 64.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile, SpooledTemporaryFile
from typing import IO, Any, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rio_cogeo import cog_validate

from storage.errors import IntegrityError
from storage.places.bucket import Location, ObjectPath
from storage.places.publish import publish, scratch_of
from storage.products.geotiff.file import MOST_CLASSIC, TileTable, make_head
from storage.products.geotiff.layer import Layer
from storage.products.geotiff.layout import TILE, CogLayout
from storage.products.geotiff.tiles import PartBytes, PartHeader, cut_tiles, deflate, read_slice
from storage.products.plates import PLATE, Plates
from storage.reference_systems import crs_words, horizontal_crs, is_same_crs

T = TypeVar("T")

_AHEAD = 4
"""Slices that are read while one is written: from a bucket each takes a while to come."""

_IN_MEMORY = 2**23
"""Bytes of compressed tiles of one coarse level from which on they wait on the disk."""


def join_cog(
    path: Location,
    layer: Layer,
    *,
    grid: GeoBox,
    parts: Callable[[int], PartBytes],
    conclude: Callable[[], None] | None = None,
    plate: int = PLATE,
    tile: int = TILE,
    most_classic: int = MOST_CLASSIC,
) -> None:
    """Write a COG of parts that :func:`storage.products.geotiff.tiles.encode` made.

    Args:
        parts: the part of each plate, by its number; asked for at each read, by several threads.
        conclude: called when all parts were looked at, before the file gets its name; raises to stop it.
        plate, tile: sides in pixels, with which the parts were made.
        most_classic: bytes of the largest file that is a classic TIFF.

    On a disk the file is drafted beside `path`. Into a bucket it is one upload in parts, made from the parts of plates
    as it is sent, without a draft; for its digest, which is sent first, they are read once more.

    Raises:
        IntegrityError: a part is missing, truncated, damaged or of something else; or what was written is not a valid
            COG. Nothing appears at `path`.
    """
    layout = CogLayout(plates=Plates(height=grid.height, width=grid.width, size=plate), tile=tile)
    if not isinstance(path, ObjectPath):
        for left in path.parent.glob(f".{path.stem}-*{path.suffix}"):  # drafts of a process that was killed here
            left.unlink(missing_ok=True)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_AHEAD))
        join = _Join(layer, layout, parts, pool)
        join.read_headers()
        coarse = _coarse_levels(layer, layout, scratch=scratch_of(path), stack=stack)
        if coarse:
            for rows in join.coarse_rows():
                coarse[0].add(rows)
        tables = join.tables(coarse)
        if conclude is not None:
            conclude()
        head = make_head(layer, grid=grid, layout=layout, tables=tables, most_classic=most_classic)

        def content() -> Iterator[bytes]:
            return chain([head], *(level.streams() for level in reversed(coarse)), join.slices())

        if isinstance(path, ObjectPath):
            size = len(head) + sum(int(table.sizes.sum(dtype=np.uint64)) for table in tables)
            _verify_head(path, head, size=size, crs=grid.crs)
            path.upload_stream(content, size=size)
        else:
            with publish(path, verify=partial(_verify, crs=grid.crs)) as draft, draft.open("wb") as file:
                file.writelines(content())


class _Join:
    """The parts of a COG, read in the order of plates; of each it keeps the sizes of tiles, bounds and checksums."""

    def __init__(
        self, layer: Layer, layout: CogLayout, parts: Callable[[int], PartBytes], pool: ThreadPoolExecutor
    ) -> None:
        self._layer, self._layout, self._parts, self._pool = layer, layout, parts, pool
        count = len(layout.plates)
        self._inner = min(layout.inner, len(layout.levels))
        self._sizes = [np.zeros(layout.tiles(level), dtype=np.uint32) for level in range(self._inner)]
        self._bounds = np.zeros((count, layout.inner + 2), dtype=np.uint64)
        self._checks = np.zeros((count, layout.inner + 1), dtype=np.uint32)

    def read_headers(self) -> None:
        def read(number: int) -> PartHeader:
            return PartHeader.read(self._parts(number), self._layer, self._layout, number)

        for plate, header in zip(self._layout.plates, self._in_order(read), strict=True):
            self._bounds[plate.number], self._checks[plate.number] = header.bounds, header.checks
            for level, sizes in enumerate(self._sizes):
                sizes[self._layout.tiles_in(plate, level)] = header.sizes[level]

    def coarse_rows(self) -> Iterator[NDArray[Any]]:
        """(h, width) pixels of the finest level that is not inner, one row of plates after the other."""
        layout, level = self._layout, self._layout.inner
        dtype = np.dtype(self._layer.dtype)
        side, width = layout.plates.size >> level, layout.levels[level][1]
        rows = np.empty((0, width), dtype=dtype)
        contents = self._in_order(lambda number: self._slice(number, level))
        for plate, content in zip(layout.plates, contents, strict=True):
            height, across = layout.shape_in(plate, level)
            if plate.col == 0:
                rows = np.empty((height, width), dtype=dtype)
            part = np.frombuffer(content, dtype=dtype.newbyteorder("<")).reshape(height, across)
            rows[:, plate.col * side : plate.col * side + across] = part
            if plate.col == layout.plates.across - 1:
                yield rows

    def tables(self, coarse: list[_CoarseLevel]) -> list[TileTable]:
        """Where each tile lies, finest level first: levels from the coarsest on, each plate by plate."""
        tables, position = [], 0
        for coarse_level in reversed(coarse):
            sizes = np.array(coarse_level.sizes, dtype=np.uint32).reshape(coarse_level.tiles)
            tables.append(TileTable(offsets=_offsets(sizes, position), sizes=sizes))
            position += int(sizes.sum(dtype=np.uint64))
        for level, sizes in reversed(list(enumerate(self._sizes))):
            offsets = np.empty(sizes.shape, dtype=np.uint64)
            for plate in self._layout.plates:
                where = self._layout.tiles_in(plate, level)
                of_plate = sizes[where]
                offsets[where] = _offsets(of_plate, position)
                position += int(of_plate.sum(dtype=np.uint64))
            tables.append(TileTable(offsets=offsets, sizes=sizes))
        return tables[::-1]

    def slices(self) -> Iterator[bytes]:
        """The tiles of the inner levels, coarsest first."""
        for level in reversed(range(self._inner)):
            yield from self._in_order(partial(self._slice, level=level))

    def _slice(self, number: int, level: int) -> bytes:
        start, stop = (int(bound) for bound in self._bounds[number, level : level + 2])
        return read_slice(self._parts(number), start, stop, check=int(self._checks[number, level]))

    def _in_order(self, read: Callable[[int], T]) -> Iterator[T]:
        """What is read of each plate, in the order of their numbers, a few ahead."""
        pending: deque[Future[T]] = deque()
        try:
            for number in range(len(self._layout.plates)):
                pending.append(self._pool.submit(read, number))
                if len(pending) > _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class _CoarseLevel:
    """A level whose tiles are made of several plates.

    Its rows come from the top. A full row of tiles is compressed and waits for the file, and goes on to the next level
    at half its resolution; so a level holds one row of tiles.
    """

    def __init__(
        self, layer: Layer, layout: CogLayout, level: int, *, following: _CoarseLevel | None, spool: IO[bytes]
    ):
        self._layer, self._tile, self._following, self._spool = layer, layout.tile, following, spool
        self.tiles = layout.tiles(level)
        self.sizes: list[int] = []
        height, width = layout.levels[level]
        self._missing = height
        self._rows = np.empty((min(layout.tile, height), width), dtype=layer.dtype)
        self._filled = 0

    def add(self, rows: NDArray[Any]) -> None:
        """Take (h, width) pixels below those that came before."""
        while len(rows):
            count = min(len(rows), len(self._rows) - self._filled)
            self._rows[self._filled : self._filled + count] = rows[:count]
            self._filled += count
            self._missing -= count
            rows = rows[count:]
            if self._filled == len(self._rows) or not self._missing:
                self._compress(self._rows[: self._filled])
                self._filled = 0

    def _compress(self, rows: NDArray[Any]) -> None:
        for stream in deflate(cut_tiles(rows, self._layer, tile=self._tile)):
            self.sizes.append(len(stream))
            self._spool.write(stream)
        if self._following is not None:
            self._following.add(self._layer.halved(rows))

    def streams(self) -> Iterator[bytes]:
        """The bytes of all tiles, row by row, in pieces."""
        self._spool.seek(0)
        while content := self._spool.read(2**20):
            yield content


def _coarse_levels(layer: Layer, layout: CogLayout, *, scratch: Path, stack: ExitStack) -> list[_CoarseLevel]:
    """Finest first, each joined to the next; empty where plates hold all tiles there are."""
    levels: list[_CoarseLevel] = []
    for level in reversed(range(layout.inner, len(layout.levels))):
        spool = stack.enter_context(SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(scratch)))  # noqa: SIM115
        following = levels[0] if levels else None
        levels.insert(0, _CoarseLevel(layer, layout, level, following=following, spool=spool))
    return levels


def _offsets(sizes: NDArray[np.uint32], start: int) -> NDArray[np.uint64]:
    """Where each tile begins; they lie row by row, one after the other, from `start` on."""
    ends = np.cumsum(sizes, dtype=np.uint64).reshape(sizes.shape)
    return ends - sizes + np.uint64(start)


def _verify_head(path: ObjectPath, head: bytes, *, size: int, crs: CRS | None) -> None:
    """Verify a COG that lies nowhere yet: its directories alone are looked at, so a file with holes is the same."""
    with NamedTemporaryFile(prefix=f".{path.stem}-", suffix=".tif") as file:
        file.write(head)
        file.truncate(size)
        _verify(Path(file.name), crs=crs)


def _verify(path: Path, *, crs: CRS | None) -> None:
    _, errors, warnings = cog_validate(path, strict=True, quiet=True)
    # what is exactly one tile wide, and higher, looks to rio-cogeo like strips
    errors = [error for error in errors if not (error.endswith("not tiled") and _has_square_blocks(path))]
    if errors or warnings:
        raise IntegrityError(f"{path} was written but is no valid COG: {'; '.join([*errors, *warnings])}")
    with rasterio.open(path) as dataset:
        written = horizontal_crs(dataset.crs.to_wkt()) if dataset.crs is not None else None
    if crs is not None and (written is None or not is_same_crs(written, crs)):
        raise IntegrityError(f"{path} was written with {crs_words(crs)} and holds {crs_words(written)}")


def _has_square_blocks(path: Path) -> bool:
    """Whether each level of a TIFF is cut into squares."""
    with rasterio.open(path) as dataset:
        shapes, coarser = list(dataset.block_shapes), len(dataset.overviews(1))
    for level in range(coarser):
        with rasterio.open(path, OVERVIEW_LEVEL=level) as dataset:
            shapes += dataset.block_shapes
    return all(height == width for height, width in shapes)

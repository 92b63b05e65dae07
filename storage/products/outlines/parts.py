"""What one plate knows of the changed areas on it: closed ones as rows of the file, open ones as pieces of outlines."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy import ndimage

from storage.errors import IntegrityError
from storage.products.outlines.ground import Ground, binary_array, rings_in
from storage.products.outlines.pieces import Pieces
from storage.products.outlines.rings import (
    Ints,
    Rings,
    Sequences,
    canonical_rings,
    offsets_of,
    sequences,
    spread,
    summed,
)
from storage.products.outlines.tracing import HALO, INSIDE, Runs, trace
from storage.products.plates import Plate
from storage.products.reader import ProbabilityReader
from tiling.conventions import LEVELS, NODATA

_FOUR_CONNECTED = ndimage.generate_binary_structure(2, 1)
_SIDES = ("above", "right", "below", "left")

ROWS = pa.schema(
    {
        "geometry": pa.binary(),
        "area_m2": pa.float64(),
        "pixels": pa.int64(),
        "mean_probability": pa.float64(),
        "max_probability": pa.float64(),
    }
)
"""Columns of the file: WKB in the grid's CRS, area on the ellipsoid, pixels, probabilities in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class OpenAreas:
    """Areas that go on beyond their plate, n of them; sums over their pixels on it.

    Attributes:
        pixels, total, highest: (n,), number of pixels, sum and maximum of their levels.
        first: (n,), first pixel in the grid, row × width + column.
        hole_m2: (n,), area on the ellipsoid of the holes that lie in the plate, with the sign of holes.
        holes: per area number of those holes, and their rings as in WKB.
    """

    pixels: Ints
    total: Ints
    highest: Ints
    first: Ints
    hole_m2: NDArray[np.float64]
    holes: list[tuple[int, bytes]]

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, kw_only=True)
class OutlinePart:
    """All that a plate gives to the file of changed areas.

    Attributes:
        closed: areas that lie in the plate, as rows of :data:`ROWS`, by their first pixel.
        areas: those that go on in neighbours.
        pieces: outlines of these as far as they cross the plate's edge.
        above, right, below, left: where the plate's changed pixels touch a neighbour's, the number of the open area:
            one for each stretch along which they touch without a gap, left to right or top to bottom. The neighbour
            has as many on its side.
    """

    closed: pa.Table
    areas: OpenAreas
    pieces: Pieces
    above: Ints
    right: Ints
    below: Ints
    left: Ints

    def to_bytes(self) -> bytes:
        """Streams of Arrow, one after the other: the same part has the same bytes."""
        areas, pieces = self.areas, self.pieces
        tables = [
            self.closed,
            pa.table(
                {
                    **{name: getattr(areas, name) for name in ("pixels", "total", "highest", "first", "hole_m2")},
                    "hole_count": np.array([count for count, _ in areas.holes], dtype=np.int64),
                    "holes": pa.array([rings for _, rings in areas.holes], type=pa.large_binary()),
                }
            ),
            pa.table({name: getattr(pieces, name) for name in ("area", "start", "left", "cross", "loop_m2", "sizes")}),
            pa.table({"y": pieces.y, "x": pieces.x}),
            *(pa.table({side: getattr(self, side)}) for side in _SIDES),
        ]
        file = io.BytesIO()
        for table in tables:
            with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
                stream.write_table(table)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str = "a part of the outlines") -> OutlinePart:
        """The part that :meth:`to_bytes` wrote; `name` is what a message calls it.

        Raises:
            IntegrityError: these are other bytes.
        """
        try:
            reader = pa.BufferReader(data)
            closed, areas, pieces, corners, *sides = [pa.ipc.open_stream(reader).read_all() for _ in range(8)]
            counts, rings = areas["hole_count"].to_pylist(), areas["holes"].to_pylist()
            return cls(
                closed=closed.cast(ROWS),
                areas=OpenAreas(
                    holes=list(zip(counts, rings, strict=True)),
                    **{f.name: areas[f.name].to_numpy() for f in fields(OpenAreas) if f.name != "holes"},
                ),
                pieces=Pieces(
                    **{f.name: (pieces if f.name not in "yx" else corners)[f.name].to_numpy() for f in fields(Pieces)}
                ),
                **{side: table[side].to_numpy() for side, table in zip(_SIDES, sides, strict=True)},
            )
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise IntegrityError(f"{name} ({len(data)} bytes) cannot be read: {error}") from error


def read_with_halo(reader: ProbabilityReader, plate: Plate) -> NDArray[np.uint8]:
    """(h + 2, w + 2) uint8: a plate with one pixel around it, nodata outside the grid."""
    rows, cols = plate.rows, plate.cols
    pixels = np.full((plate.shape[0] + 2, plate.shape[1] + 2), NODATA, dtype=np.uint8)
    top, left = max(rows.start - 1, 0), max(cols.start - 1, 0)
    bottom, right = min(rows.stop + 1, reader.height), min(cols.stop + 1, reader.width)
    inner = np.s_[top - rows.start + 1 : bottom - rows.start + 1, left - cols.start + 1 : right - cols.start + 1]
    pixels[inner] = reader.read_probability(rows=slice(top, bottom), cols=slice(left, right))
    return pixels


def part_of(
    pixels: NDArray[np.uint8], plate: Plate, *, grid: GeoBox, level: int, min_area_m2: float = 0.0
) -> OutlinePart:
    """Changed areas of one plate.

    Args:
        pixels: (h + 2, w + 2) levels, the plate with one pixel around it, as :func:`read_with_halo` gives them.
        grid: of the whole map.
        level: the lowest that counts as changed, 1 to 254.
        min_area_m2: closed areas that are smaller are left out; of open ones the join decides.
    """
    assert pixels.shape == (plate.shape[0] + 2, plate.shape[1] + 2), (pixels.shape, plate)
    cells = ((pixels >= level) & (pixels != NODATA)).view(np.uint8) * np.uint8(HALO)
    inner = cells[1:-1, 1:-1]
    inner[inner == HALO] = INSIDE
    labels = np.zeros(cells.shape, dtype=np.int32)
    count = ndimage.label(inner, structure=_FOUR_CONNECTED, output=labels[1:-1, 1:-1])
    sides = {
        "above": _contacts(cells[1], cells[0], labels[1]),
        "right": _contacts(cells[:, -2], cells[:, -1], labels[:, -2]),
        "below": _contacts(cells[-2], cells[-1], labels[-2]),
        "left": _contacts(cells[:, 1], cells[:, 0], labels[:, 1]),
    }
    is_open = np.zeros(count + 1, dtype=np.bool_)
    for touching in sides.values():
        is_open[touching] = True

    width = grid.shape[1]
    sums = _sums(pixels, labels, count, plate, width)
    # closed areas and open ones are numbered apart, each by their first pixel
    by_first = np.argsort(sums.first)
    closed, opened = by_first[~is_open[by_first + 1]], by_first[is_open[by_first + 1]]
    number = np.zeros(count + 1, dtype=np.int64)
    number[closed + 1], number[opened + 1] = np.arange(len(closed)), np.arange(len(opened))

    ground = Ground(grid)
    runs = trace(cells, labels, is_open, top=plate.rows.start, left=plate.cols.start, width=width)
    linked = sequences(runs.next)
    of_open = is_open[runs.label[linked.firsts]]
    outlines = _rings(runs, linked, linked.is_ring & ~of_open, number)
    holes = _rings(runs, linked, linked.is_ring & of_open, number)
    pieces = _pieces(runs, linked, number, ground)
    del cells, inner, labels, runs, linked  # a noisy plate has some 200 MB of them, and its polygons need as much
    return OutlinePart(
        closed=_rows(outlines, sums.chosen(closed), ground, min_area_m2),
        areas=_open_areas(holes, sums.chosen(opened), ground),
        pieces=pieces,
        **{side: number[touching] for side, touching in sides.items()},
    )


def _contacts(cells: NDArray[np.uint8], beside: NDArray[np.uint8], labels: NDArray[np.int32]) -> Ints:
    """Label of each stretch of an edge along which changed pixels touch those beside the plate."""
    touching = (cells == INSIDE) & (beside == HALO)
    begins = touching.copy()
    begins[1:] &= ~touching[:-1]
    return labels[begins].astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Number of pixels, sum and maximum of their levels, first pixel in the grid; one element an area."""

    pixels: Ints
    total: Ints
    highest: Ints
    first: Ints

    def chosen(self, indices: Ints) -> _Sums:
        return _Sums(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})


def _sums(pixels: NDArray[np.uint8], labels: NDArray[np.int32], count: int, plate: Plate, width: int) -> _Sums:
    """Of labels 1 to `count`; pixels and labels are (h + 2, w + 2)."""
    places = np.flatnonzero(labels.ravel() > 0)
    of, levels = labels.ravel()[places], pixels.ravel()[places]
    highest = np.zeros(count + 1, dtype=np.uint8)
    np.maximum.at(highest, of, levels)
    # labels are met in the order of pixels: of many numbers put in one place the last remains
    first = np.zeros(count + 1, dtype=np.int64)
    first[of[::-1]] = places[::-1]
    y = first[1:] // labels.shape[1]
    x = first[1:] - y * labels.shape[1]
    return _Sums(
        pixels=np.bincount(of, minlength=count + 1)[1:],
        total=np.bincount(of, weights=levels, minlength=count + 1)[1:].astype(np.int64),
        highest=highest[1:].astype(np.int64),
        first=(y + plate.rows.start - 1) * width + x + plate.cols.start - 1,
    )


def _rings(runs: Runs, linked: Sequences, chosen: NDArray[np.bool_], number: Ints) -> Rings:
    """Rings of some of the sequences; owners are areas by their number."""
    kept = np.flatnonzero(chosen)
    sizes = linked.sizes[kept]
    of = linked.order[spread(linked.offsets[kept], sizes)]
    return canonical_rings(number[runs.label[linked.firsts[kept]]], offsets_of(sizes), runs.y[of], runs.x[of])


def _rows(rings: Rings, sums: _Sums, ground: Ground, min_area_m2: float) -> pa.Table:
    count = len(sums.pixels)
    enclosed = ground.signed_areas(rings.y, rings.x, rings.offsets)
    area_m2 = np.abs(summed(enclosed, rings.owner, count))
    large = area_m2 >= min_area_m2
    if not large.all():
        kept, number = np.flatnonzero(large), np.cumsum(large) - 1
        rings, sums, area_m2 = rings.of_owners(large, number=number), sums.chosen(kept), area_m2[kept]
    return rows_of(
        ground.polygons(rings, len(area_m2)), area_m2, pixels=sums.pixels, total=sums.total, highest=sums.highest
    )


def rows_of(
    polygons: list[bytes], area_m2: NDArray[np.float64], *, pixels: Ints, total: Ints, highest: Ints
) -> pa.Table:
    """Areas as rows of :data:`ROWS`: WKB, and by area number of pixels, sum and maximum of their levels."""
    return pa.table(
        {
            "geometry": binary_array(polygons),
            "area_m2": area_m2,
            "pixels": pixels,
            "mean_probability": total / pixels / LEVELS,
            "max_probability": highest / LEVELS,
        },
        schema=ROWS,
    )


def _open_areas(holes: Rings, sums: _Sums, ground: Ground) -> OpenAreas:
    count = len(sums.pixels)
    enclosed = ground.signed_areas(holes.y, holes.x, holes.offsets)
    return OpenAreas(
        **{field.name: getattr(sums, field.name) for field in fields(sums)},
        hole_m2=summed(enclosed, holes.owner, count),
        holes=[rings_in(polygon) for polygon in ground.polygons(holes, count)],
    )


def _pieces(runs: Runs, linked: Sequences, number: Ints, ground: Ground) -> Pieces:
    kept = np.flatnonzero(~linked.is_ring)
    lengths = linked.sizes[kept]
    of = linked.order[spread(linked.offsets[kept], lengths)]
    turning = runs.corner[of]
    piece = np.repeat(np.arange(len(kept)), lengths)
    sizes = np.bincount(piece[turning], minlength=len(kept))
    y, x = runs.y[of[turning]], runs.x[of[turning]]
    first, last = linked.firsts[kept], linked.order[linked.offsets[kept + 1] - 1]
    return Pieces(
        area=number[runs.label[first]],
        start=runs.starts(first),
        left=runs.lefts(last),
        cross=runs.crossings(last),
        loop_m2=ground.signed_areas(y, x, offsets_of(sizes)),
        sizes=sizes,
        y=y,
        x=x,
    )

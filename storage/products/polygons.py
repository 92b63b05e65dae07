"""Changed areas as polygons, dissolved across block edges, in a GeoParquet file written as they close.

A block is polygonised on its own; where a changed area touches the edge of its block it stays open until the last block
that it reaches has been seen. So the memory holds the outlines of the areas that are open along one row of blocks,
never the mosaic.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Geod
from rasterio.features import shapes
from scipy import ndimage
from shapely.affinity import affine_transform, translate
from shapely.geometry.base import BaseGeometry

from storage.places.bucket import Location
from storage.places.publish import publish
from storage.products.reader import ProbabilityReader
from tiling.conventions import LEVELS, NODATA, changed_level

_ROWS_A_GROUP = 50_000
_VERTICES_APART = 1_000_000
"""Vertices of the pieces of one open area before they become one: some 16 MB."""
_FOUR_CONNECTED = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True, kw_only=True)
class VectorResult:
    """How many polygons were written, and their area in square metres."""

    count: int
    area_m2: float


@dataclass
class _Area:
    """A changed area: its pieces in pixel coordinates, and sums over its pixels.

    Pieces with many vertices become one, so that what is held of an area is its outline, however many blocks it covers.
    """

    pieces: list[BaseGeometry] = field(default_factory=list)
    pixels: int = 0
    total: int = 0
    highest: int = 0
    vertices: int = 0
    merged: int = 0  # vertices when pieces last became one

    def append(self, piece: BaseGeometry) -> None:
        self.pieces.append(piece)
        self.vertices += int(shapely.get_num_coordinates(piece))

    def add(self, other: _Area) -> None:
        self.pieces += other.pieces
        self.pixels += other.pixels
        self.total += other.total
        self.highest = max(self.highest, other.highest)
        self.vertices += other.vertices
        # not before twice as many: an outline that grows is not merged again for every block
        if self.vertices > max(_VERTICES_APART, 2 * self.merged):
            self.pieces = [self.outline()]
            self.vertices = self.merged = int(shapely.get_num_coordinates(self.pieces[0]))

    def outline(self) -> BaseGeometry:
        """The area's polygon."""
        return self.pieces[0] if len(self.pieces) == 1 else shapely.union_all(self.pieces)


def write_changes(
    reader: ProbabilityReader, path: Location, *, threshold: float, min_area_m2: float = 0.0
) -> VectorResult:
    """Write the polygons of all 4-connected areas whose probability is `threshold` or more.

    Columns: geometry in the grid's CRS, `area_m2` (on the ellipsoid), `pixels`, `mean_probability`,
    `max_probability`. Ordered by the block row in which an area ends, then by its first pixel.

    Args:
        threshold: on the probability, in (0, 1).
        min_area_m2: smaller areas are left out.
    """
    geod = reader.grid.crs.proj.get_geod() if reader.grid.crs is not None else None
    writer: pq.ParquetWriter | None = None
    count, area = 0, 0.0
    with publish(path) as draft:
        try:
            for frame in _frames(reader, changed_level(threshold), geod or Geod(ellps="WGS84"), min_area_m2):
                count += len(frame)
                area += float(frame["area_m2"].sum())
                table = _to_arrow(frame, reader.grid)
                if writer is None:
                    writer = pq.ParquetWriter(draft, table.schema, compression="zstd")
                writer.write_table(table)
            if writer is None:
                empty = _frame([], reader.grid, Geod(ellps="WGS84"), 0.0)
                pq.write_table(_to_arrow(empty, reader.grid), draft)
        finally:
            if writer is not None:
                writer.close()
    return VectorResult(count=count, area_m2=area)


def _frames(reader: ProbabilityReader, level: int, geod: Geod, min_area_m2: float) -> Iterator[geopandas.GeoDataFrame]:
    waiting: list[_Area] = []
    for closed in _closed_areas(reader, level):
        waiting += closed
        if len(waiting) >= _ROWS_A_GROUP:
            yield _frame(waiting, reader.grid, geod, min_area_m2)
            waiting = []
    if waiting:
        frame = _frame(waiting, reader.grid, geod, min_area_m2)
        if len(frame):
            yield frame


def _closed_areas(reader: ProbabilityReader, level: int) -> Iterator[list[_Area]]:
    """Areas in the order in which they close, one list a row of blocks."""
    size, width = reader.block, reader.width
    above = np.zeros(width, dtype=np.int64)  # key of the open area that each pixel of the last row belongs to
    areas: dict[int, _Area] = {}
    parent: dict[int, int] = {}
    next_key = 1

    def root(key: int) -> int:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def join(a: int, b: int) -> None:
        first, second = sorted((root(a), root(b)))
        if first != second:
            parent[second] = first
            areas[first].add(areas.pop(second))

    for y in range(0, reader.height, size):
        rows = slice(y, min(y + size, reader.height))
        below = np.zeros(width, dtype=np.int64)
        left: NDArray[np.int64] | None = None
        for x in range(0, width, size):
            cols = slice(x, min(x + size, width))
            pixels = reader.read_probability(rows=rows, cols=cols)
            labels, areas_of_block = _label(pixels, level)
            keys = np.zeros(len(areas_of_block) + 1, dtype=np.int64)
            for number, area in enumerate(areas_of_block, start=1):
                area.pieces = [translate(piece, xoff=x, yoff=y) for piece in area.pieces]
                keys[number] = next_key
                areas[next_key] = area
                parent[next_key] = next_key
                next_key += 1
            keyed = keys[labels]
            _join_along(above[cols], keyed[0], join)
            if left is not None:
                _join_along(left, keyed[:, 0], join)
            left, below[cols] = keyed[:, -1].copy(), keyed[-1]
        # what does not reach the last row of this row of blocks can grow no more
        roots = {int(key): root(int(key)) for key in np.unique(below[below > 0])}
        open_keys = set(roots.values()) if rows.stop < reader.height else set()
        yield [areas.pop(key) for key in sorted(areas) if key not in open_keys]
        above = below
        above[above > 0] = [roots[int(key)] for key in below[below > 0]]
        parent = {key: key for key in open_keys}


def _join_along(one: NDArray[np.int64], other: NDArray[np.int64], join: Any) -> None:
    touching = (one > 0) & (other > 0)
    for a, b in np.unique(np.stack([one[touching], other[touching]], axis=1), axis=0):
        join(int(a), int(b))


def _label(pixels: NDArray[np.uint8], level: int) -> tuple[NDArray[np.int32], list[_Area]]:
    """Areas of one block in its own pixel coordinates; label n is element n − 1."""
    changed = (pixels >= level) & (pixels != NODATA)
    labels, count = ndimage.label(changed, structure=_FOUR_CONNECTED, output=np.int32)
    if not count:
        return labels, []
    numbers = np.arange(1, count + 1)
    areas = [
        _Area(pixels=int(n), total=int(total), highest=int(highest))
        for n, total, highest in zip(
            np.bincount(labels.ravel(), minlength=count + 1)[1:],
            ndimage.sum_labels(pixels, labels, numbers),
            ndimage.maximum(pixels, labels, numbers),
            strict=True,
        )
    ]
    for shape, value in shapes(labels, mask=changed, connectivity=4):
        areas[int(value) - 1].append(shapely.geometry.shape(shape))
    return labels, areas


def _frame(areas: list[_Area], grid: GeoBox, geod: Geod, min_area_m2: float) -> geopandas.GeoDataFrame:
    frame = geopandas.GeoDataFrame(_columns(areas, grid, geod), crs=str(grid.crs))
    return frame[frame["area_m2"] >= min_area_m2].reset_index(drop=True)


def _columns(areas: list[_Area], grid: GeoBox, geod: Geod) -> dict[str, Any]:
    a, b, c, d, e, f = tuple(grid.affine)[:6]
    polygons = [affine_transform(area.outline(), (a, b, d, e, c, f)) for area in areas]
    # rings turn as the geodesic area wants them: shells left, holes right
    geographic = shapely.orient_polygons(geopandas.GeoSeries(polygons, crs=str(grid.crs)).to_crs("EPSG:4326").values)
    return {
        "geometry": geopandas.GeoSeries(polygons, crs=str(grid.crs)),
        "area_m2": np.array([abs(geod.geometry_area_perimeter(p)[0]) for p in geographic], dtype=np.float64),
        "pixels": np.array([area.pixels for area in areas], dtype=np.int64),
        "mean_probability": np.array([area.total / area.pixels / LEVELS for area in areas], dtype=np.float64),
        "max_probability": np.array([area.highest / LEVELS for area in areas], dtype=np.float64),
    }


def _to_arrow(frame: geopandas.GeoDataFrame, grid: GeoBox) -> pa.Table:
    """A row group, with the GeoParquet 1.1 metadata of the whole file: its extent is the grid's."""
    crs, box = grid.crs, grid.extent.boundingbox
    assert crs is not None
    description = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Polygon", "MultiPolygon"],
                "crs": crs.proj.to_json_dict(),
                "bbox": [box.left, box.bottom, box.right, box.top],
            }
        },
    }
    columns = {name: pa.array(frame[name]) for name in frame.columns if name != "geometry"}
    table = pa.table({"geometry": pa.array(shapely.to_wkb(frame.geometry.values), type=pa.binary()), **columns})
    return table.replace_schema_metadata({"geo": json.dumps(description)})

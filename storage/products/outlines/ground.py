"""Rings on the ground: coordinates in the grid's CRS, areas on its ellipsoid, polygons as WKB."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer

from storage.errors import InputError
from storage.products.outlines.rings import Ints, Rings, offsets_of, spread

_HEADER = 9
"""Bytes of WKB before a polygon's first ring: byte order, type, number of rings."""
_POLYGONS_AT_ONCE = 50_000
MOST_BYTES = 2**31 - 2**20
"""A page of Parquet and a buffer of Arrow are shorter than 2³¹ bytes, and a value lies in one, beside few others."""


class Ground:
    """Where the vertices of a grid lie."""

    def __init__(self, grid: GeoBox) -> None:
        assert grid.crs is not None, "a run's grid has a CRS"
        self._affine = tuple(grid.affine)[:6]
        self._to_degrees, self._geod = _surface(grid.crs.proj.to_wkt())

    def coordinates(self, y: Ints, x: Ints) -> NDArray[np.float64]:
        """(n, 2) in the grid's CRS of vertices in pixels."""
        a, b, c, d, e, f = self._affine
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    def signed_areas(self, y: Ints, x: Ints, offsets: Ints) -> NDArray[np.float64]:
        """(n,) m² on the ellipsoid within each of n rings of vertices in pixels, closed by a geodesic.

        Shells have one sign and holes the other. What has less than three vertices has no area.
        """
        areas = np.zeros(len(offsets) - 1, dtype=np.float64)
        chosen = np.flatnonzero(np.diff(offsets) > 2)
        if len(chosen):
            at = self.coordinates(y, x)
            longitudes, latitudes = self._to_degrees.transform(at[:, 0], at[:, 1])
            measure = self._geod.polygon_area_perimeter
            for ring, begin, end in zip(
                chosen.tolist(), offsets[chosen].tolist(), offsets[chosen + 1].tolist(), strict=True
            ):
                areas[ring] = measure(longitudes[begin:end], latitudes[begin:end])[0]
        return areas

    def polygons(self, rings: Rings, count: int) -> list[bytes]:
        """WKB of the polygons of owners 0 to `count` − 1; the first ring of each is its shell."""
        sizes = rings.sizes
        # each ring ends where it begins
        closed = offsets_of(sizes + 1)
        vertices = spread(rings.offsets[:-1], sizes + 1)
        vertices[closed[1:] - 1] = rings.offsets[:-1]
        owners = offsets_of(np.bincount(rings.owner, minlength=count))
        polygons: list[bytes] = []
        for begin in range(0, count, _POLYGONS_AT_ONCE):
            some = owners[begin : begin + _POLYGONS_AT_ONCE + 1]
            offsets = closed[some[0] : some[-1] + 1]
            chosen = vertices[offsets[0] : offsets[-1]]
            at = self.coordinates(rings.y[chosen], rings.x[chosen])
            parts = offsets - offsets[0], some - some[0]
            shapes = shapely.from_ragged_array(shapely.GeometryType.POLYGON, at, parts)
            polygons += shapely.to_wkb(shapes, byte_order=1).tolist()
        return polygons


@lru_cache(maxsize=8)
def _surface(crs: str) -> tuple[Transformer, Geod]:
    system = CRS(crs)
    return Transformer.from_crs(system, "EPSG:4326", always_xy=True), system.get_geod() or Geod(ellps="WGS84")


def rings_in(polygon: bytes) -> tuple[int, bytes]:
    """Number of rings of a polygon in little-endian WKB, and the bytes of the rings."""
    return int.from_bytes(polygon[_HEADER - 4 : _HEADER], "little"), polygon[_HEADER:]


def with_holes(polygon: bytes, holes: list[tuple[int, bytes]], *, pixels: int) -> bytes:
    """A polygon in WKB with more holes, each a number of rings and their bytes.

    Raises:
        InputError: the outline is longer than a value of a file may be.
    """
    if not holes:
        return polygon
    count, rings = rings_in(polygon)
    length = len(polygon) + sum(len(more) for _, more in holes)
    if length > MOST_BYTES:
        raise InputError(
            f"a changed area of {pixels} pixels has an outline of {length / 1e9:.1f} GB, and a GeoParquet file holds "
            f"{MOST_BYTES / 1e9:.1f} GB in one polygon: the map is mostly noise at this threshold, choose a higher one"
        )
    count += sum(number for number, _ in holes)
    return b"".join([polygon[: _HEADER - 4], count.to_bytes(4, "little"), rings, *(more for _, more in holes)])


def binary_array(values: list[bytes]) -> pa.Array:
    """An Arrow column of bytes; together at most :data:`MOST_BYTES`."""
    offsets = offsets_of(np.fromiter(map(len, values), dtype=np.int64, count=len(values))).astype(np.int32)
    # one alone may be long, and is not copied
    content = values[0] if len(values) == 1 else b"".join(values)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.binary(), len(values), buffers)

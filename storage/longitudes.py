"""Longitudes that differ by whole turns are one place: grids, boxes and outlines in one frame, and cut at 180°."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import pi
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry
from shapely.affinity import translate
from shapely.geometry import box, mapping, shape
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from storage.reference_systems import to_degrees

_EDGE_POINTS = 33
_EDGE_SHARE = 1 / 256
"""Of an extent: how long a piece of an edge may be that is straight in degrees and in a grid's CRS."""
_HALF = 180.0


def turn_of(crs: CRS | None) -> float:
    """One turn around the Earth in units of a system's x: 360 of degrees; 0 where x is no longitude."""
    return 0.0 if crs is None else _turn_of(str(crs))  # a CRS spells out its WKT to be hashed


@lru_cache(maxsize=256)
def _turn_of(definition: str) -> float:
    crs = CRS(definition)
    if not crs.geographic or not crs.proj.axis_info:
        return 0.0
    factor = crs.proj.axis_info[0].unit_conversion_factor
    return float(round(2 * pi / factor, 9)) if factor else 360.0


def in_frame_of(own: GeoBox, frame: GeoBox) -> GeoBox:
    """A grid of longitudes moved by whole turns to where another one counts them; any other grid as it is."""
    turn = turn_of(own.crs)
    if not turn or frame.crs is None:
        return own
    turns = round((_longitude(frame) - _longitude(own)) / 360)
    return _moved(own, turns * turn) if turns else own


def _moved(grid: GeoBox, by: float) -> GeoBox:
    return GeoBox(grid.shape, Affine.translation(by, 0) * grid.affine, grid.crs)


def _longitude(grid: GeoBox) -> float:
    """That of a grid's middle, in degrees."""
    x, y = grid.affine * (grid.width / 2, grid.height / 2)
    assert grid.crs is not None
    if turn := turn_of(grid.crs):
        return float(x) * 360 / turn
    longitude = float(to_degrees(grid.crs).transform(x, y)[0])
    return longitude if np.isfinite(longitude) else 0.0


def in_one_frame(grids: Sequence[GeoBox]) -> list[GeoBox]:
    """Grids of longitudes beside each other where that is the nearer way: 179.9° and −179.9° are 0.2° apart.

    The first one stays as it is. Grids that span less than half a turn as they are stay too.
    """
    turn = turn_of(grids[0].crs)
    if not turn or any(grid.crs != grids[0].crs for grid in grids):
        return list(grids)
    left = np.array([grid.affine.c for grid in grids])
    right = left + np.array([grid.affine.a * grid.width for grid in grids])
    if right.max() - left.min() <= turn / 2:
        return list(grids)
    # the frame begins behind the widest gap on the circle
    start = np.mod(left, turn)
    order = np.argsort(start)
    ends = np.maximum.accumulate((start + right - left)[order])
    gaps = np.append(start[order][1:], start[order][0] + turn) - ends
    begin = start[order][(int(gaps.argmax()) + 1) % len(grids)]
    shift = np.mod(start - begin, turn) + begin - left
    width = (left + shift + right - left).max() - (left + shift).min()
    if width >= right.max() - left.min() - 1e-9:
        return list(grids)
    shift = np.round((shift - shift[0]) / turn) * turn
    return [_moved(grid, float(by)) if by else grid for grid, by in zip(grids, shift, strict=True)]


def box_in_frame(own: BoundingBox, frame: GeoBox) -> BoundingBox:
    """A box of longitudes moved by whole turns to where it overlaps a grid the most; any other box as it is."""
    turn = turn_of(own.crs)
    if not turn or own.crs != frame.crs:
        return own
    extent = frame.extent.boundingbox

    def overlap(by: float) -> float:
        return float(min(own.right + by, extent.right) - max(own.left + by, extent.left))

    by = max((0.0, turn, -turn), key=overlap)
    return BoundingBox(own.left + by, own.bottom, own.right + by, own.top, crs=own.crs)


def outline_on(outline: Geometry, grid: GeoBox, *, is_whole: bool = False) -> Geometry:
    """An outline of longitudes and latitudes in a grid's CRS; where that counts longitudes, in its frame of them.

    Args:
        is_whole: also of what lies far from the grid, where its CRS may be no good.
    """
    assert grid.crs is not None
    turn = turn_of(grid.crs)
    if not turn:
        return (outline if is_whole else _near(outline, grid)).to_crs(grid.crs)
    own = outline.to_crs(grid.crs)
    extent = box(*grid.extent.boundingbox)
    middle = extent.centroid.x
    parts = []
    for part in shapely.get_parts(own.geom):  # an outline that is cut at 180° has parts on both sides
        nearest = turn * round((middle - part.centroid.x) / turn)
        copies = {by: translate(part, xoff=by) for by in (nearest, nearest - turn, nearest + turn)}
        parts += [copy for by, copy in copies.items() if by == nearest or copy.intersects(extent)]
    if len(parts) == 1 and parts[0].equals(own.geom):
        return own
    return Geometry(shapely.union_all(parts), grid.crs)


def _near(outline: Geometry, grid: GeoBox) -> Geometry:
    """The part of an outline in degrees around a grid, its edges in short pieces: a parallel is no straight line there.

    All of it where no part is near: whoever asks says so in the grid's own numbers.
    """
    footprint = shape(footprint_of(grid)[0])
    margin = max(footprint.bounds[3] - footprint.bounds[1], _EDGE_SHARE) * _EDGE_SHARE
    around = footprint.buffer(margin)
    turned = [translate(outline.geom, xoff=by).intersection(around) for by in (0.0, -360.0, 360.0)]
    part = shapely.union_all([piece for piece in turned if piece.area])
    if part.is_empty:
        return outline
    west, south, east, north = part.bounds
    return Geometry(shapely.segmentize(part, max(east - west, north - south) * _EDGE_SHARE), outline.crs)


def footprint_of(grid: GeoBox) -> tuple[dict[str, Any], list[float]]:
    """A grid's outline in degrees as GeoJSON, and its box (west, south, east, north).

    As RFC 7946 wants it: what crosses 180° is cut there, and the west of its box is larger than the east.
    """
    longitudes, latitudes = _outline(grid)
    unwrapped = np.unwrap(longitudes, period=360)
    if abs(unwrapped[-1] - unwrapped[0]) > _HALF:  # around a pole
        pole = 90.0 if latitudes.mean() > 0 else -90.0
        south, north = sorted((pole, float(latitudes.min() if pole > 0 else latitudes.max())))
        return dict(mapping(box(-180, south, 180, north))), [-180.0, south, 180.0, north]
    west, east = float(unwrapped.min()), float(unwrapped.max())
    if west >= -_HALF and east <= _HALF and np.array_equal(unwrapped, longitudes):
        extent = grid.geographic_extent
        return dict(extent.json), list(extent.boundingbox)
    shift = -360 * np.floor((west + _HALF) / 360)
    # straight edges need no more than their ends; shells turn left, as RFC 7946 has them
    ring = shapely.simplify(shapely.LinearRing(np.stack([unwrapped + shift, latitudes], axis=1)), 1e-9)
    polygon = orient(shapely.Polygon(ring))
    west, south, east, north = polygon.bounds
    if east - west >= 360:
        return dict(mapping(box(-180, south, 180, north))), [-180.0, south, 180.0, north]
    if east <= _HALF:
        return dict(mapping(polygon)), [west, south, east, north]
    return dict(mapping(cut_at_180(polygon))), [west, south, east - 360, north]


def _outline(grid: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points around a grid, the first one again at the end: longitudes and latitudes."""
    share = np.linspace(0, 1, _EDGE_POINTS)[:-1]
    zeros, ones = np.zeros_like(share), np.ones_like(share)
    cols = np.concatenate([share, ones, 1 - share, zeros, [0.0]]) * grid.width
    rows = np.concatenate([zeros, share, ones, 1 - share, [0.0]]) * grid.height
    assert grid.crs is not None
    x, y = grid.affine.c + grid.affine.a * cols, grid.affine.f + grid.affine.e * rows
    longitudes, latitudes = to_degrees(grid.crs).transform(x, y)
    return np.asarray(longitudes), np.asarray(latitudes)


def cut_at_180(geometry: BaseGeometry) -> BaseGeometry:
    """Polygons whose longitudes reach beyond ±180° as polygons within them, cut where they cross."""
    west, south, east, north = geometry.bounds
    if west >= -_HALF and east <= _HALF:
        return geometry
    pieces = []
    for turn in range(int(np.floor((west + _HALF) / 360)), int(np.ceil((east - _HALF) / 360)) + 1):
        piece = geometry.intersection(box(360 * turn - _HALF, south, 360 * turn + _HALF, north))
        pieces.append(translate(piece, xoff=-360 * turn))
    parts = shapely.get_parts(shapely.union_all([piece for piece in pieces if piece.area]))
    return shapely.MultiPolygon([orient(part) for part in parts if part.geom_type == "Polygon"])


def footprint_touches(
    geometry: Mapping[str, Any] | None, bounds: Sequence[float] | None, outline: BaseGeometry
) -> bool:
    """Whether the footprint of a STAC item and an outline in degrees share a place, whatever turns they count.

    Args:
        geometry: as GeoJSON; a polygon that jumps by more than half a turn, from 179° to −179°, crosses 180° there.
        bounds: the item's box, for one without a geometry; its west may be larger than its east.
    """
    if geometry is not None:
        own = _unbelted(shape(dict(geometry)))
    elif bounds:
        numbers = [float(number) for number in bounds]
        west, south, east, north = numbers if len(numbers) == 4 else [numbers[i] for i in (0, 1, 3, 4)]
        own = box(west, south, east + 360 if west > east else east, north)
    else:
        return True
    return any(translate(own, xoff=by).intersects(outline) for by in (0.0, -360.0, 360.0))


def _eastward(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 2) with western longitudes counted on from 180°."""
    moved = points.copy()
    moved[moved[:, 0] < 0, 0] += 360
    return moved


def _unbelted(geometry: BaseGeometry) -> BaseGeometry:
    """A geometry of which polygons that belt the globe only because nobody cut them lie where they were meant."""
    parts: Iterable[BaseGeometry] = getattr(geometry, "geoms", [geometry])
    mended = []
    for part in parts:
        jumps = np.abs(np.diff(shapely.get_coordinates(part)[:, 0])) if part.geom_type == "Polygon" else np.zeros(0)
        if ((jumps > _HALF) & (jumps < 360)).any():
            part = shapely.transform(part, _eastward)
        mended.append(part if part.is_valid else shapely.make_valid(part))
    return mended[0] if len(mended) == 1 else shapely.union_all(mended)

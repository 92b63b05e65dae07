"""Regions: the polygons of a GeoJSON file, as people and their programs write them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from odc.geo.crs import CRS
from odc.geo.geom import Geometry
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from storage.errors import InputError
from storage.reference_systems import crs_words, horizontal_crs, require_earth
from storage.text import decoded

_OTHERS = ("Point", "MultiPoint", "LineString", "MultiLineString")
_DEEPEST = 64
"""Geometry collections inside of each other."""

_SAME_AREA = 1e-6
"""Share by which mending a ring may change its area: it touches itself, and does not cross itself."""

_EDGE_SHARE = 1 / 32
"""Length of the pieces of an edge that is brought to degrees, of the outline's extent."""


def region_text(path: Path) -> str:
    """What a region's file says, without what its encoding adds.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        return decoded(path.read_bytes(), path=f"region {path}")
    except OSError as error:
        raise InputError(f"region {path} cannot be read: {error.strerror or error}") from error


def region_geometry(path: Path) -> Geometry:
    """The union of the polygons of a GeoJSON file, in EPSG:4326.

    Longitudes may be counted from −180 to 180 or from 0 to 360; a ``crs`` member, as GeoJSON had it before RFC 7946, is
    heeded; heights are left out.

    Raises:
        InputError: not GeoJSON, no polygon in it, or one that is none; naming which and where.
    """
    text = region_text(path)
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
        polygons = [
            (number, shape)
            for number, shape in enumerate(_geometries(content), start=1)
            if shape["type"] in ("Polygon", "MultiPolygon")
        ]
        if not polygons:
            kinds = sorted({str(shape["type"]) for shape in _geometries(content)})
            raise ValueError(f"holds no polygon{', but ' + ', '.join(kinds) if kinds else ': it is empty'}")
        crs = _crs(content)
        outline = shapely.union_all([_polygons(shape, number) for number, shape in polygons])
    except json.JSONDecodeError as error:
        raise InputError(f"region {path} is no JSON: {error}") from error
    except RecursionError as error:
        raise InputError(f"region {path} is no GeoJSON: it is nested too deeply") from error
    except ValueError as error:
        # a fault of its CRS has words of its own
        raise InputError(f"region {path}{':' * isinstance(error, InputError)} {error}") from error
    if outline.is_empty or not outline.area:
        raise InputError(f"region {path} holds polygons without an area")
    geometry = Geometry(outline, crs)
    if str(crs) != "EPSG:4326":
        box = geometry.boundingbox
        geometry = geometry.to_crs("EPSG:4326", resolution=max(box.span_x, box.span_y) * _EDGE_SHARE)
    box = geometry.boundingbox
    if not (box.left >= -360 and box.right <= 360 and box.bottom >= -90 and box.top <= 90):  # NaN is not either
        raise InputError(
            f"region {path} must be in degrees (EPSG:4326) or name its CRS in a crs member; its extent is "
            f"x {box.left:.6g} to {box.right:.6g}, y {box.bottom:.6g} to {box.top:.6g} in {crs_words(crs)}"
        )
    return geometry


def _refuse_constant(name: str) -> float:
    raise ValueError(f"holds the number {name}, which JSON does not have")


def _geometries(content: object, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """All geometries of a GeoJSON object, those of collections one by one."""
    if content is None:  # a feature without a place
        return
    if not isinstance(content, Mapping) or not isinstance(content.get("type"), str):
        raise ValueError(f"is no GeoJSON: it holds {_kind(content)} where an object with a type is needed")
    if depth > _DEEPEST:
        raise ValueError("is no GeoJSON: its collections are nested too deeply")
    kind = content["type"]
    if kind == "Feature":
        yield from _geometries(content.get("geometry"), depth + 1)
    elif kind in ("FeatureCollection", "GeometryCollection"):
        members = content.get("features" if kind == "FeatureCollection" else "geometries")
        if not isinstance(members, list):
            raise ValueError(f"is no GeoJSON: its {kind} has {_kind(members)} where a list is needed")
        for member in members:
            yield from _geometries(member, depth + 1)
    elif kind in ("Polygon", "MultiPolygon", *_OTHERS):
        yield content
    else:
        raise ValueError(f"is no GeoJSON: it has the type {kind[:40]!r}")


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else f"{json.dumps(value)[:40]}"


def _crs(content: Mapping[str, Any]) -> CRS:
    """The CRS that a file names as GeoJSON did it until 2016; degrees where it names none."""
    member = content.get("crs")
    if member is None:
        return CRS("EPSG:4326")
    properties = member.get("properties") if isinstance(member, Mapping) else None
    name = properties.get("name") if isinstance(properties, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"names its CRS as {json.dumps(member)[:80]}: its crs member needs a name")
    crs = horizontal_crs(name)
    require_earth(crs, "its crs member")
    return crs


def _polygons(shape: Mapping[str, Any], number: int) -> BaseGeometry:
    parts = shape.get("coordinates")
    if not isinstance(parts, list):
        raise ValueError(f"is no GeoJSON: geometry {number} has {_kind(parts)} as its coordinates")
    polygons = [_polygon(part, number) for part in ([parts] if shape["type"] == "Polygon" else parts) if part]
    whole = polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)
    if whole.is_valid:
        return whole
    mended = shapely.make_valid(whole)
    signed = sum(polygon.area for polygon in polygons)
    overlap = shapely.union_all([shapely.make_valid(polygon) for polygon in polygons])
    crosses = any(not polygon.is_valid for polygon in polygons)
    if crosses and abs(mended.area - signed) > _SAME_AREA * max(mended.area, signed):
        raise ValueError(
            f"holds a polygon that is none: polygon {number}, {shapely.is_valid_reason(whole)[:80]} (x y); mend it "
            "(QGIS: Fix geometries)"
        )
    return mended if crosses else overlap  # parts that overlap are one


def _polygon(rings: object, number: int) -> Polygon:
    if not isinstance(rings, list):
        raise ValueError(f"is no GeoJSON: geometry {number} has {_kind(rings)} where rings are needed")
    shell, *holes = [_ring(ring, number) for ring in rings]
    return Polygon(shell, holes)


def _ring(positions: object, number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n, 2) of a ring; heights are left out."""
    if not isinstance(positions, list) or len(positions) < 4:
        raise ValueError(f"holds a polygon that is none: polygon {number} has a ring of fewer than four positions")
    for position in positions:
        if not _is_position(position):
            raise ValueError(
                f"holds a polygon that is none: polygon {number} has {_kind(position)} "
                f"{json.dumps(position)[:60]} where x and y are needed"
            )
    return np.array([position[:2] for position in positions], dtype=np.float64)


def _is_position(position: object) -> bool:
    return isinstance(position, list) and len(position) >= 2 and all(map(_is_number, position[:2]))


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False

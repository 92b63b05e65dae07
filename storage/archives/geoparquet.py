"""STAC items in a GeoParquet file (stac-geoparquet), as the JSON that other STAC is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import mapping

from storage.errors import InputError
from storage.imagery.names.indexes import rows_of_parquet

_OF_ITEM = {
    "type",
    "stac_version",
    "stac_extensions",
    "id",
    "geometry",
    "bbox",
    "links",
    "assets",
    "collection",
    "properties",
}
"""Columns that are members of an item; all others are properties."""


def items_of_parquet(path: str) -> Iterator[dict[str, Any]]:
    """Items of a local file, in its order.

    Raises:
        InputError: naming the file: it is no Parquet, or a geometry in it is none.
    """
    for row in rows_of_parquet(path):
        own = {name: _plain(value) for name, value in row.items() if name in _OF_ITEM and name != "geometry"}
        others = {name: _plain(value) for name, value in row.items() if name not in _OF_ITEM}
        yield {
            "type": "Feature",
            "stac_version": "1.0.0",
            "links": [],
            **own,
            "geometry": _geometry(row.get("geometry"), path, row.get("id")),
            "bbox": _bounds(row.get("bbox")),
            "properties": {**own.get("properties", {}), **others},
        }


def _geometry(value: Any, path: str, name: object) -> dict[str, Any] | None:
    if value is None or isinstance(value, Mapping):
        return None if value is None else dict(value)
    try:
        if not isinstance(value, bytes | str):
            raise TypeError(f"{type(value).__name__} is no well-known binary")
        return dict(mapping(shapely.from_wkb(value)))
    except (ShapelyError, TypeError) as error:
        raise InputError(f"STAC item {name} in {path} has a geometry that is none: {error}") from error


def _bounds(value: object) -> list[float] | None:
    if isinstance(value, Mapping):
        sides = [value.get(side) for side in ("xmin", "ymin", "xmax", "ymax")]
        return None if None in sides else sides  # type: ignore[return-value]
    return list(value) if isinstance(value, list | tuple) else None


def _plain(value: Any) -> Any:
    """A value as JSON has it: times as text, and without what a column holds for other rows alone."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return value.isoformat() if isinstance(value, date) else value

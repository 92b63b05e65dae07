"""Regions as people's programs write them: read by what they mean, or refused in one line."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from shapely.geometry import box, mapping, shape

from storage.errors import InputError
from storage.regions import region_geometry

SQUARE = [[5, 50], [6, 50], [6, 51], [5, 51], [5, 50]]


def polygon(ring: Any = SQUARE) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [ring]}


def write(folder: Path, content: Any, encoding: str = "utf-8") -> Path:
    path = folder / "region.geojson"
    path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize(
    "content",
    [
        polygon(),
        polygon([[*position, 120.5] for position in SQUARE]),
        {"type": "Feature", "properties": {"name": "é"}, "geometry": polygon()},
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [0, 0]}, polygon()]},
        {
            "type": "FeatureCollection",
            "features": [
                {"type": "Feature", "geometry": None, "properties": None},
                {"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": [polygon()]}},
            ],
        },
        {"type": "MultiPolygon", "coordinates": [[SQUARE], [[[5.5, 50], [6, 50], [6, 51], [5.5, 51], [5.5, 50]]]]},
        {**polygon(), "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}},
        polygon([[5, 50], [5.5, 50], [6, 50], [6, 51], [5.5, 50], [5, 51], [5, 50]]),  # touches itself
    ],
)
def test_what_means_a_region_is_one(tmp_path: Path, content: dict[str, Any], encoding: str) -> None:
    outline = region_geometry(write(tmp_path, content, encoding))
    assert outline.geom.bounds == (5, 50, 6, 51)
    assert str(outline.crs) == "EPSG:4326"


def test_a_region_of_another_crs_is_brought_to_degrees(tmp_path: Path) -> None:
    metres = box(500_000, 5_500_000, 520_000, 5_510_000)
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    outline = region_geometry(write(tmp_path, {**mapping(metres), "crs": crs}))
    x, y = Transformer.from_crs(32631, 4326, always_xy=True).transform(510_000, 5_505_000)
    assert outline.geom.contains(shape({"type": "Point", "coordinates": [x, y]}))
    with pytest.raises(InputError, match=r"must be in degrees.*x 500000 to 520000"):
        region_geometry(write(tmp_path, mapping(metres)))


DEEP = '{"type": "GeometryCollection", "geometries": [' * 100_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (polygon([[5, 50], [6, 51], [6, 50], [5, 51], [5, 50]]), r"polygon 1, Self-intersection\[5\.5 50\.5\]"),
        ([], "holds a list"),
        ("5", "holds 5 where"),
        ('"text"', 'holds "text"'),
        ("null", "holds no polygon: it is empty"),
        ("", "is no JSON"),
        ("{}", "holds an object where an object with a type"),
        ('{"type": "Polygon", "coordinates": [[[NaN, 1]]]}', "the number NaN"),
        ({"type": "FeatureCollection", "features": {}}, "FeatureCollection has an object where a list"),
        ({"type": "FeatureCollection", "features": []}, "holds no polygon: it is empty"),
        ({"type": "Point", "coordinates": [5, 50]}, "holds no polygon, but Point"),
        ({"type": "Topology"}, "the type 'Topology'"),
        ({"type": "Polygon", "coordinates": []}, "needed|no polygon|none"),
        ({"type": "Polygon", "coordinates": [[[5, 50], [6, 50]]]}, "fewer than four"),
        (polygon([[5, 50], [6, "x"], [6, 51], [5, 50]]), "where x and y are needed"),
        (polygon([[5, 50], [6, None], [6, 51], [5, 50]]), "where x and y are needed"),
        (polygon([[5, 50], [6, 50], [7, 50], [5, 50]]), "without an area|none"),
        ({**polygon(), "crs": {"type": "link"}}, "its crs member needs a name"),
        ({**polygon(), "crs": {"type": "name", "properties": {"name": "EPSG:999999"}}}, "not known"),
        (DEEP, "nested too deeply|no JSON"),
        ("[" * 100_000, "nested too deeply|no JSON"),
        ("\0\1\2\3", "no text|no JSON"),
    ],
)
def test_what_means_none_is_refused_in_one_line(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as refusal:
        region_geometry(write(tmp_path, content))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400 + len(str(tmp_path))


def test_a_region_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.geojson", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            region_geometry(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(value=json_values, place=st.sampled_from(["type", "coordinates", "ring", "position", "geometry", "crs"]))
def test_no_region_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, value: Any, place: str) -> None:
    content: Any = {"type": "Feature", "geometry": polygon(), "properties": {}}
    if place == "geometry":
        content["geometry"] = value
    elif place == "crs":
        content["crs"] = value
    elif place == "ring":
        content["geometry"] = {"type": "Polygon", "coordinates": [value]}
    elif place == "position":
        content["geometry"] = polygon([value, *SQUARE[1:]])
    else:
        content["geometry"] = {**polygon(), place: value}
    with suppress(InputError):
        region_geometry(write(tmp_path_factory.mktemp("region"), json.dumps(content), "utf-8"))

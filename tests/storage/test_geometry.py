"""The size of a pixel on the ground."""

from __future__ import annotations

import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from storage.geometry import metres_a_pixel


def grid(crs: str | None, x: float, y: float, step: float) -> GeoBox:
    """Of 10 × 10 px around (x, y)."""
    return GeoBox((10, 10), Affine(step, 0, x - 5 * step, 0, -step, y + 5 * step), crs)


@pytest.mark.parametrize(
    ("crs", "x", "y", "step", "metres"),
    [
        ("EPSG:4326", 10.0, 0.0, 0.001, 111.32),
        ("EPSG:4326", 10.0, 60.0, 0.001, 55.80),  # a degree of longitude at 60° is 55.80 km on WGS 84
        ("EPSG:32632", 500_000.0, 5_500_000.0, 10.0, 10 / 0.9996),  # the scale along UTM's central meridian
        ("EPSG:2263", 984_250.0, 212_000.0, 1.0, 0.3048),  # Long Island, in US feet
        ("EPSG:3857", 1_113_194.9, 8_399_737.9, 10.0, 5.01),  # 60° north, where Mercator's pixel is half of its name
    ],
)
def test_a_pixel_is_as_wide_as_on_the_ground(crs: str, x: float, y: float, step: float, metres: float) -> None:
    assert metres_a_pixel(grid(crs, x, y, step)) == pytest.approx(metres, rel=2e-3)


def test_a_grid_without_a_place_keeps_its_own_unit() -> None:
    assert metres_a_pixel(grid(None, 0.0, 0.0, 1.0)) == 1.0

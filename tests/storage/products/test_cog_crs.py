"""A COG is where its grid is, or it is not published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from storage.errors import IntegrityError
from storage.products.cog import write_layer
from storage.products.geotiff.layer import Layer
from storage.reference_systems import horizontal_crs

LAYER = Layer(dtype="uint8", nodata=255, description="probability")


def write(path: Path, crs: str) -> None:
    grid = GeoBox((64, 64), Affine(0.01, 0, 1, 0, -0.01, 1), horizontal_crs(crs))
    write_layer(path, LAYER, grid=grid, strips=[(slice(0, 64), np.ones((64, 64), np.uint8))])


@pytest.mark.parametrize("crs", ["EPSG:4326", "+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84 +units=m"])
def test_a_cog_has_the_crs_of_its_grid_and_nothing_beside_it(tmp_path: Path, crs: str) -> None:
    write(tmp_path / "a.tif", crs)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert horizontal_crs(dataset.crs.to_wkt()) == horizontal_crs(crs)


def test_a_cog_that_lost_its_crs_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="holds no CRS"):
        write(tmp_path / "a.tif", "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18")
    assert list(tmp_path.iterdir()) == []

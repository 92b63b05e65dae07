"""Labels that are polygons: what lies inside has changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from storage.errors import InputError
from storage.imagery.sources import absolute

POLYGONS = (".geojson", ".json", ".gpkg", ".shp", ".parquet", ".fgb")


@dataclass(frozen=True, kw_only=True)
class DrawnPolygons:
    """Polygons on a grid: 1 inside, 0 outside. Reads its file when first asked, so it travels to workers."""

    path: str
    grid: GeoBox

    @cached_property
    def _shapes(self) -> geopandas.GeoDataFrame:
        return read_polygons(self.path).to_crs(str(self.grid.crs))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": absolute(self.path), "grid": self.grid}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def read(self, *, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """(h, w) of a range inside the grid."""
        part = self.grid[rows, cols]
        hits = self._shapes.iloc[self._shapes.sindex.query(part.extent.geom)]
        label = np.zeros(part.shape, dtype=np.uint8)
        if len(hits):
            rasterize(hits.geometry, out=label, transform=part.affine, default_value=1)
        return label

    @property
    def is_elsewhere(self) -> bool:
        """Whether no polygon touches the grid."""
        return not len(self._shapes.sindex.query(self.grid.extent.geom, predicate="intersects"))


def is_drawn(path: str) -> bool:
    """Whether a label is polygons, by its name."""
    return path.lower().endswith(POLYGONS)


def read_polygons(path: str) -> geopandas.GeoDataFrame:
    """Polygons of a GeoJSON, GeoPackage, Shapefile, FlatGeobuf or GeoParquet file.

    Raises:
        InputError: missing, unreadable, no CRS, or no polygon in it.
    """
    if not Path(path).exists():
        raise InputError(f"{path} does not exist")
    try:
        frame = geopandas.read_parquet(path) if path.lower().endswith(".parquet") else geopandas.read_file(path)
    except Exception as error:  # each format has errors of its own
        raise InputError(f"{path} cannot be read as polygons: {error}") from error
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.crs is None:
        raise InputError(f"{path} has no coordinate reference system")
    areal = frame[frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"])]
    if areal.empty:
        raise InputError(f"{path} holds no polygon: {len(frame)} features, none of them areal")
    return areal

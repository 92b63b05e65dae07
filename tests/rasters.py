"""Small georeferenced rasters for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine


def geotiff(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    """Write (C, h, w) as a GeoTIFF of one metre a pixel in UTM 31N; `profile` overrides what rasterio is told."""
    usual: dict[str, object] = {
        "driver": "GTiff",
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype,
        "crs": "EPSG:32631",
        "transform": Affine(1, 0, 500_000, 0, -1, 5_600_000),
    }
    with rasterio.open(path, "w", **{**usual, **profile}) as dataset:
        dataset.write(pixels)
    return path

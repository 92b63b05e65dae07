"""Versions of what the result depends on, for provenance."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = ("torch", "numpy", "zarr", "zarrs", "xarray", "rasterio", "odc-geo", "dask", "distributed", "prefect")


def versions() -> dict[str, str]:
    """Version of this program, of Python and of the libraries that touch pixels or blocks."""
    version_by_name = {"python": platform.python_version()}
    for name in ("dasnet-region", *_LIBRARIES):
        try:
            version_by_name[name] = version(name)
        except PackageNotFoundError:
            version_by_name[name] = "not installed"
    return version_by_name

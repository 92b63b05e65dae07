"""The grid of an archive: its first run chooses it by the request, later runs take it from the directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box

from flows.archive.request import ReprocessRequest
from flows.run.directory import RunDirectory
from storage.archives.listing import DatedFiles
from storage.errors import InputError
from storage.geometry import grid_of
from storage.imagery.grids import common_grid
from storage.imagery.mosaics import Mosaic
from storage.longitudes import box_in_frame, outline_on
from storage.regions import region_geometry, region_text

_ALL = 0.999
"""Share of an area that counts as all of it: rounding may cost a pixel."""


def outline(request: ReprocessRequest) -> Geometry | None:
    """The area whose STAC items count, in EPSG:4326; None = all, also for a box whose CRS only the imagery says."""
    extent = request.grid
    if extent.region is not None:
        return region_geometry(extent.region)
    if extent.bbox is None or extent.crs is None:
        return None
    return box(*extent.bbox, extent.crs).to_crs("EPSG:4326")


def grid_options(request: ReprocessRequest) -> dict[str, Any]:
    """The user's options of the grid, the region by its content."""
    region = request.grid.region
    return {**request.grid.model_dump(mode="json"), "region": None if region is None else region_text(region)}


def recorded_grid(root: RunDirectory, request: ReprocessRequest) -> GeoBox | None:
    """The grid that was chosen when the archive directory was begun; None for a new directory."""
    record = root.describe()
    if record is None or record["identity"].get("kind") != "archive":
        return None
    if record["identity"]["asked"] != grid_options(request):
        return None  # adopting the directory will refuse, and say what changed
    return grid_of(record["grid"])


def not_covered(grid: GeoBox, request: ReprocessRequest) -> list[str]:
    """A warning where the requested region reaches beyond the grid."""
    assert grid.crs is not None
    if request.grid.region is not None:
        region = outline_on(region_geometry(request.grid.region), grid, is_whole=True).boundingbox
    elif request.grid.bbox is not None:
        region = box_in_frame(BoundingBox(*request.grid.bbox, crs=grid.crs), grid)
    else:
        return []
    extent = grid.extent.boundingbox
    width = min(region.right, extent.right) - max(region.left, extent.left)
    height = min(region.top, extent.top) - max(region.bottom, extent.bottom)
    share = width * height / (region.span_x * region.span_y)
    if share > _ALL:
        return []
    return [
        f"the grid has {share:.1%} of the box around the region asked for: it ends where the dates ended that the "
        "archive had when it was begun"
    ]


def first_grid(opened: Sequence[tuple[DatedFiles, Mosaic]], request: ReprocessRequest) -> GeoBox:
    """The first date's grid; or the requested one, as far as any date reaches, on the pixels of the first in it."""
    extent = request.grid
    failure: InputError | None = None
    for _, mosaic in opened:
        try:
            return common_grid(
                [mosaic],
                crs=extent.crs,
                resolution=extent.resolution,
                bbox=extent.bbox,
                region=extent.region,
                covered_by=[other for _, other in opened],
            )
        except InputError as error:
            failure = failure or error
    assert failure is not None
    raise failure

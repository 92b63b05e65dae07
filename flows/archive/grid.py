"""The grid of an archive: asked for, chosen by its first run, and kept from then on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox, Geometry, box

from flows.archive.request import ReprocessRequest
from flows.run.directory import RunDirectory
from storage.archives.listing import DatedFiles
from storage.errors import InputError
from storage.geometry import grid_of, region_geometry
from storage.imagery.grids import common_grid
from storage.imagery.mosaics import Mosaic

_ALL = 0.999
"""Of an area, and a rounded pixel less."""


def outline(request: ReprocessRequest) -> Geometry | None:
    """Where STAC items are wanted, in EPSG:4326; None = anywhere, also for a box whose CRS only the imagery tells."""
    asked = request.grid
    if asked.region is not None:
        return region_geometry(asked.region)
    if asked.bbox is None or asked.crs is None:
        return None
    return box(*asked.bbox, asked.crs).to_crs("EPSG:4326")


def asked_grid(request: ReprocessRequest) -> dict[str, Any]:
    """What the user said of the grid, the region by its content."""
    asked = request.grid.model_dump(mode="json")
    region = request.grid.region
    return {**asked, "region": None if region is None else region.read_text()}


def recorded_grid(root: RunDirectory, request: ReprocessRequest) -> GeoBox | None:
    """The grid that was chosen when the archive directory was begun; None for a new directory."""
    known = root.describe()
    if known is None or known["identity"].get("kind") != "archive":
        return None
    if known["identity"]["asked"] != asked_grid(request):
        return None  # adopting the directory will refuse, and say what changed
    return grid_of(known["grid"])


def not_covered(grid: GeoBox, request: ReprocessRequest) -> list[str]:
    """A warning where the region asked for reaches beyond the grid."""
    asked = request.grid
    assert grid.crs is not None
    if asked.region is not None:
        wanted = region_geometry(asked.region).to_crs(grid.crs).boundingbox
    elif asked.bbox is not None:
        wanted = BoundingBox(*asked.bbox, crs=grid.crs)
    else:
        return []
    extent = grid.extent.boundingbox
    wide = min(wanted.right, extent.right) - max(wanted.left, extent.left)
    high = min(wanted.top, extent.top) - max(wanted.bottom, extent.bottom)
    share = wide * high / (wanted.span_x * wanted.span_y)
    if share > _ALL:
        return []
    return [
        f"the grid has {share:.1%} of the box around the region asked for: it ends where the dates ended that the "
        "archive had when it was begun"
    ]


def first_grid(opened: Sequence[tuple[DatedFiles, Mosaic]], request: ReprocessRequest) -> GeoBox:
    """The first date's grid; or the one asked for, as far as any date reaches, on the pixels of the first one there."""
    asked = request.grid
    failure: InputError | None = None
    for _, mosaic in opened:
        try:
            return common_grid(
                [mosaic],
                crs=asked.crs,
                resolution=asked.resolution,
                bbox=asked.bbox,
                region=asked.region,
                covered_by=[other for _, other in opened],
            )
        except InputError as error:
            failure = failure or error
    assert failure is not None
    raise failure

"""What the plans of a pair and of an archive share: types, resolutions, geometry and cost."""

from __future__ import annotations

import numpy as np
from odc.geo.geobox import GeoBox

from dasnet.prediction.header import BundleHeader
from flows.cluster.layout import planned_layout
from flows.inference.model import Model
from flows.inference.request import InferenceRequest
from storage.errors import InputError
from storage.geometry import metres_a_pixel
from storage.imagery.mosaics import Mosaic
from tiling.grid import BlockGrid, WindowLattice
from tiling.plan import Plan

_RESOLUTION_TOLERANCE = 1.5
"""Ratio to the bundle's ground resolution that is worth a warning: the network has never seen objects of that size."""


def require_dtype(mosaic: Mosaic, bundle: BundleHeader, name: str) -> None:
    """Refuse a mosaic of another type than the bundle's; raises InputError."""
    if mosaic.dtype != bundle.dtype:
        raise InputError(
            f"{mosaic.label} holds {mosaic.dtype}, but bundle {name} takes {bundle.dtype}: "
            f"rescale the mosaic to {bundle.dtype}, or choose a bundle for {mosaic.dtype}"
        )


def compare_resolution(grid: GeoBox, bundle: Model, warnings: list[str]) -> None:
    """Add a warning where the grid's pixels are far larger or smaller than those that the bundle was trained on."""
    if bundle.resolution is None:
        return
    metres = metres_a_pixel(grid)
    ratio = metres / bundle.resolution
    if not 1 / _RESOLUTION_TOLERANCE <= ratio <= _RESOLUTION_TOLERANCE:
        warnings.append(
            f"the grid's pixels are about {metres:.3g} m, the bundle was trained at {bundle.resolution:g} m: "
            "expect worse results, or give --resolution"
        )


def plan_of(request: InferenceRequest, bundle: Model, grid: GeoBox, *, dates: int) -> Plan:
    """Geometry and cost of a series of `dates`; raises InputError where windows and overlap do not fit."""
    window = request.window or bundle.window
    overlap = bundle.overlap(window) if request.overlap is None else request.overlap
    if overlap >= window:
        raise InputError(f"overlap {overlap} px must be less than the window, {window} px")
    blocks = BlockGrid(height=grid.height, width=grid.width, size=request.block)
    layout = planned_layout(request.cluster, blocks=len(blocks))
    return Plan(
        blocks=blocks,
        lattice=WindowLattice(height=grid.height, width=grid.width, window=window, overlap=overlap),
        dates=dates,
        bands=len(bundle.band_names),
        itemsize=np.dtype(bundle.dtype).itemsize,
        workers=layout.workers,
        lanes=layout.lanes,
        model_bytes=bundle.lane_bytes,
    )

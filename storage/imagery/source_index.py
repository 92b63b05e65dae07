"""Which of many sources lie where on a grid, so that a block looks at those that it touches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely import STRtree

from storage.imagery.sources import Source
from storage.longitudes import turn_of
from storage.reference_systems import is_same_crs

_EDGE_POINTS = 9
"""Points along each edge of a source that is brought from another CRS."""

_KERNEL_PX = 8
"""Pixels, of the grid or of the source, by which resampling may reach beyond a source's outline."""

_BULGE = 0.05
"""Share of a source's size by which the edges of its outline may bulge between those points."""


class SourceIndex:
    """Boxes of sources in pixels of a grid."""

    def __init__(self, sources: Sequence[Source], grid: GeoBox) -> None:
        """Sources of the grid's CRS are exact; the boxes of others are somewhat too large."""
        self._boxes = _boxes(sources, grid)
        self._tree = STRtree(np.asarray(shapely.box(*self._boxes.T)))

    def touching(self, rows: slice, cols: slice) -> list[int]:
        """Numbers of the sources that may have pixels in a range of the grid, ascending."""
        # a source that ends where the range begins only meets its edge
        area = shapely.box(cols.start + 1e-6, rows.start + 1e-6, cols.stop - 1e-6, rows.stop - 1e-6)
        return sorted(int(number) for number in self._tree.query(area))

    def span(self, number: int, *, rows: slice, cols: slice) -> tuple[slice, slice]:
        """The part of a range of the grid, in whole pixels, that one source may have pixels in: rows and columns."""
        x0, y0, x1, y1 = self._boxes[number]
        return _within(y0, y1, rows), _within(x0, x1, cols)


def _within(low: float, high: float, span: slice) -> slice:
    start = int(np.clip(np.floor(low), span.start, span.stop))
    return slice(start, int(np.clip(np.ceil(high), start, span.stop)))


def _boxes(sources: Sequence[Source], grid: GeoBox) -> NDArray[np.float64]:
    """(n, 4) x0, y0, x1, y1 of each source in pixels of the grid."""
    assert grid.crs is not None or len(sources) == 1
    boxes = np.empty((len(sources), 4))
    by_crs: dict[str, list[int]] = defaultdict(list)  # by text: a CRS spells out its WKT to be hashed
    for number, source in enumerate(sources):
        by_crs[str(source.grid.crs)].append(number)
    for numbers in by_crs.values():
        grids = [sources[number].grid for number in numbers]
        crs = grids[0].crs
        affines = np.array([tuple(source_grid.affine)[:6] for source_grid in grids])
        sizes = np.array([(source_grid.width, source_grid.height) for source_grid in grids], dtype=np.float64)
        is_own = crs == grid.crs or (crs is not None and grid.crs is not None and is_same_crs(crs, grid.crs))
        # (n, points) as shares of width and height: corners alone where the mapping is a scale and a shift
        u, v = _outline(2 if is_own else _EDGE_POINTS)
        x = affines[:, 2:3] + affines[:, 0:1] * sizes[:, 0:1] * u
        y = affines[:, 5:6] + affines[:, 4:5] * sizes[:, 1:2] * v
        if not is_own:
            assert crs is not None
            assert grid.crs is not None
            shape = x.shape
            x, y = Transformer.from_crs(crs.proj, grid.crs.proj, always_xy=True).transform(x.ravel(), y.ravel())
            x, y = np.asarray(x).reshape(shape), np.asarray(y).reshape(shape)
            if turn := turn_of(grid.crs):
                middle = (grid.affine * (grid.width / 2, grid.height / 2))[0]
                x = x + turn * np.round((middle - x) / turn)
        col, row = ~grid.affine * (x, y)
        box = np.stack([col.min(axis=1), row.min(axis=1), col.max(axis=1), row.max(axis=1)], axis=1)
        reach = np.stack([box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]], axis=1)
        margin = np.maximum(_KERNEL_PX, _KERNEL_PX * reach / sizes) + (0.0 if is_own else _BULGE) * reach
        box[:, :2] -= margin
        box[:, 2:] += margin
        # where a system ends nothing is known: such a source is looked at for every block
        everywhere = np.array([0, 0, grid.width, grid.height], dtype=np.float64)
        boxes[numbers] = np.where(np.isfinite(box).all(axis=1, keepdims=True), box, everywhere)
    return boxes


def _outline(points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    share = np.linspace(0, 1, points)
    zeros, ones = np.zeros(points), np.ones(points)
    return np.concatenate([share, share, zeros, ones]), np.concatenate([zeros, ones, share, share])

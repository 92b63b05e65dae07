"""Pictures and maps of numbers in a grid, with a scale, as figures of papers show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage.pages.pictures import png


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture of a grid.

    Attributes:
        values: (h, w, 3) uint8, or (h, w) numbers of the grid's scale.
        under: (s, s, 3) uint8 that the numbers are laid over, or None.
        mark: row and column of a pixel to mark, in the picture's pixels; None = none.
        spacing: pixels between two numbers, the first of which stands for pixel 0 and its surroundings, the last one
            for what lies beyond it too; 0 = together they fill the picture, each a part of it.
    """

    values: NDArray[Any]
    title: str = ""
    under: NDArray[np.uint8] | None = None
    mark: tuple[int, int] | None = None
    spacing: int = 0

    def placed(self, side: int) -> tuple[NDArray[Any], tuple[float, float, float, float]]:
        """Numbers, and left, right, bottom and top edge of them all in a picture of `side` pixels."""
        if not self.spacing:
            return self.values, (-0.5, side - 0.5, side - 0.5, -0.5)
        values = np.pad(self.values, ((0, 1), (0, 1)), mode="edge")
        before, (rows, columns) = -self.spacing / 2, values.shape
        return values, (before, before + columns * self.spacing, before + rows * self.spacing, before)


def grid_of_maps(
    rows: Sequence[Sequence[Cell]], *, side: int, scale: str, high: float, row_titles: Sequence[str] = ()
) -> bytes:
    """PNG of cells in rows; numbers run from 0, dark, to `high`, light, on a scale that colour-blind readers order too.

    Args:
        side: side of what every cell shows, pixels, whatever the resolution of its numbers.
        scale: label of the scale.
    """
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(1.75 * columns + 0.9, 1.95 * len(rows) + 0.2), layout="constrained", dpi=110)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    extent = (-0.5, side - 0.5, side - 0.5, -0.5)
    drawn = None
    for number, row in enumerate(rows):
        for place, axis in enumerate(axes[number]):
            axis.set_xticks([])
            axis.set_yticks([])
            if place >= len(row):
                axis.set_visible(False)
                continue
            cell = row[place]
            if cell.values.ndim == 3:
                axis.imshow(cell.values, extent=extent, interpolation="nearest")
            else:
                if cell.under is not None:
                    axis.imshow(cell.under, extent=extent, interpolation="nearest")
                values, edges = cell.placed(side)
                drawn = axis.imshow(
                    values,
                    extent=edges,
                    cmap="cividis",
                    vmin=0,
                    vmax=high,
                    interpolation="nearest",
                    alpha=None if cell.under is None else 0.65,
                )
            if cell.mark is not None:
                axis.plot([cell.mark[1]], [cell.mark[0]], marker="+", color="#D55E00", markersize=12, markeredgewidth=2)
            axis.set(xlim=extent[:2], ylim=extent[2:])
            axis.set_title(cell.title, fontsize=8)
        if row_titles:
            axes[number][0].set_ylabel(row_titles[number], fontsize=8)
    if drawn is not None:
        figure.colorbar(drawn, ax=axes, label=scale, shrink=0.8)
    return png(figure)


def clouds(panels: Sequence[tuple[str, NDArray[np.float32], NDArray[np.bool_]]]) -> bytes:
    """PNG of points (n, 2) in planes beside each other: (title, points, True = changed)."""
    figure = Figure(figsize=(4.2 * len(panels), 4.0), layout="constrained", dpi=110)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, points, changed) in zip(axes, panels, strict=True):
        for kind, colour, form, name in ((False, "#0072B2", "o", "unchanged"), (True, "#E69F00", "^", "changed")):
            chosen = points[changed == kind]
            axis.scatter(chosen[:, 0], chosen[:, 1], s=14, c=colour, marker=form, label=name, linewidths=0, alpha=0.8)
        axis.set(title=title, xlabel="first axis of t-SNE", ylabel="second axis")
        axis.legend(frameon=False, fontsize=8)
    return png(figure)

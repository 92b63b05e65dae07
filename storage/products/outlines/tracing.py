"""Outlines of changed pixels on one plate, traced as straight runs of pixel edges, all at once.

A changed pixel owns each of its four unit edges beyond which nothing changed. Edges are walked so that the pixel lies
on the left: down its left side, right along its bottom, up its right side, left along its top. Edges that go on
straight form a *run*; where a run turns there is a corner of an outline.

Changed areas are 4-connected: two pixels that touch at a vertex alone belong together only if the area connects them
elsewhere. There the walk crosses over from one to the other, so that a ring never visits a vertex twice: what it would
enclose becomes a hole that touches the shell, which is what a valid polygon wants. Elsewhere it stays with its pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
"""int32 for what is of one plate, int64 for what names places of the whole grid."""

BACKGROUND, INSIDE, HALO = 0, 1, 2
"""What a pixel is to a plate: not changed, changed on the plate, changed beside it."""

_DOWN, _RIGHT, _UP, _LEFT = range(4)
_AHEAD = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""(rows, columns) of a step along an edge, by its direction."""
_OUTSIDE = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""(rows, columns) from an edge's pixel to the one beyond the edge."""
_END = ((1, 0), (1, 1), (0, 1), (0, 0))
"""(rows, columns) from an edge's pixel to the vertex at the edge's end."""
_NONE = -1


@dataclass(frozen=True, kw_only=True)
class Edges:
    """How the unit edges of a grid are named by a key: (row × width + column of the pixel) × 4 + direction.

    Attributes:
        step: pixels from one row of the plate to the next in flat indices, its halo included.
        top, left: row and column in the grid of the plate's halo, −1 at the grid's edge.
        width: of the grid, pixels.
    """

    step: int
    top: int
    left: int
    width: int

    def rows_and_columns(self, pixels: Ints) -> tuple[Ints, Ints]:
        """Place in the grid of flat indices."""
        rows = pixels // self.step
        return rows + self.top, pixels - rows * self.step + self.left

    def keys(self, pixels: Ints, directions: Ints) -> Ints:
        """Keys of the edges of pixels, given as flat indices."""
        y, x = self.rows_and_columns(pixels)
        return (y.astype(np.int64) * self.width + x) * 4 + directions


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Straight runs of edges of one plate; all arrays have one element a run, pixels are flat indices of the plate.

    Attributes:
        label: the area that a run bounds.
        y, x: vertex of the grid at the run's end, pixels from the grid's corner.
        corner: whether the outline turns there; it goes on straight only into a neighbour plate.
        next: the run that follows on this plate; −1 where that is another plate's, or is not known.
        first, direction: pixel of the run's first edge, and the direction of all its edges.
        target, onward: pixel and direction of the edge that follows, if the walk stays with its pixel.
        opposite: the pixel that is met at a vertex alone, where it is not known whether it belongs to the same area: if
            it does, its edge follows, with the direction before; −1 where that is known.
        edges: the names of edges.
    """

    label: Ints
    y: Ints
    x: Ints
    corner: NDArray[np.bool_]
    next: Ints
    first: Ints
    direction: Ints
    target: Ints
    onward: Ints
    opposite: Ints
    edges: Edges

    def starts(self, runs: Ints) -> Ints:
        """Keys of the first edges of some runs."""
        return self.edges.keys(self.first[runs], self.direction[runs])

    def lefts(self, runs: Ints) -> Ints:
        """Keys of the edges that follow some runs, if the walk stays with its pixel."""
        return self.edges.keys(self.target[runs], self.onward[runs])

    def crossings(self, runs: Ints) -> Ints:
        """Keys of the edges that follow some runs, if the pixel at the vertex is of the same area; else −1."""
        opposite = self.opposite[runs]
        return np.where(opposite >= 0, self.edges.keys(opposite, (self.direction[runs] - 1) % 4), _NONE)


def trace(
    cells: NDArray[np.uint8], labels: NDArray[np.int32], is_open: NDArray[np.bool_], *, top: int, left: int, width: int
) -> Runs:
    """All runs of a plate.

    Args:
        cells: (h + 2, w + 2), the plate with one pixel around it: BACKGROUND, INSIDE or HALO.
        labels: (h + 2, w + 2), number of the 4-connected area of each pixel that is INSIDE, from 1.
        is_open: by label, whether the area touches a changed pixel of the halo.
        top, left: the plate's first row and column in the grid.
        width: of the grid, pixels.
    """
    edges = Edges(step=cells.shape[1], top=top - 1, left=left - 1, width=width)
    flat, flat_labels = cells.ravel(), labels.ravel()
    transposed = np.ascontiguousarray(cells.T)
    parts = [_straight(cells if d in (_RIGHT, _LEFT) else transposed, d, edges.step) for d in range(4)]
    first = np.concatenate([start for start, _ in parts])
    last = np.concatenate([end for _, end in parts])
    direction = np.repeat(np.arange(4, dtype=np.int8), [len(start) for start, _ in parts])

    ahead = last + _offsets(_AHEAD, edges.step)[direction]
    beyond = ahead + _offsets(_OUTSIDE, edges.step)[direction]
    goes_on, diagonal = flat[ahead] != BACKGROUND, flat[beyond]
    straight = goes_on & (diagonal == BACKGROUND)
    turns_right = goes_on & (diagonal != BACKGROUND)
    label = flat_labels[last]

    # two pixels that touch at a vertex alone
    at_vertex = np.flatnonzero(~goes_on & (diagonal != BACKGROUND))
    own, other = label[at_vertex], flat_labels[beyond[at_vertex]]  # 0 beside the plate
    turns_right[at_vertex] = own == other
    # beside the plate, or of another open area: the two may be connected on other plates
    unknown = at_vertex[(own != other) & is_open[own] & ((other == 0) | is_open[other])]
    opposite = np.full(len(last), _NONE, dtype=np.int32)
    opposite[unknown] = beyond[unknown]

    target = np.where(straight, ahead, np.where(turns_right, beyond, last))
    onward = (direction + np.where(straight, 0, np.where(turns_right, 3, 1)).astype(np.int8)) & 3
    following = _numbers_of(target, onward, first, direction, flat)
    following[unknown] = _NONE
    y, x = edges.rows_and_columns(last)
    end = np.array(_END, dtype=np.int32)
    return Runs(
        label=label,
        y=y + end[direction, 0],
        x=x + end[direction, 1],
        corner=~straight,
        next=following,
        first=first,
        direction=direction,
        target=target,
        onward=onward,
        opposite=opposite,
        edges=edges,
    )


def _straight(cells: NDArray[np.uint8], direction: int, step: int) -> tuple[Ints, Ints]:
    """First and last pixel of each straight run of one direction, as flat indices of the row-major plate.

    `cells` is laid out so that edges of this direction follow each other: transposed for those that go down or up.
    """
    transposed = direction in (_DOWN, _UP)
    row = cells.shape[1]
    flat = cells.ravel()
    forward = sum(_AHEAD[direction])
    outside = row * sum(_OUTSIDE[direction])
    # the first and the last row are halo, so that both neighbours of a row exist
    beyond = flat[2 * row :] if outside > 0 else flat[: -2 * row]
    edges = (np.flatnonzero(flat[row:-row] > beyond) + row).astype(np.int32)
    edges = edges[(flat[edges] == INSIDE) & (flat[edges + outside] == BACKGROUND)]  # not those of the halo
    goes_on = (flat[edges + forward] == INSIDE) & (flat[edges + forward + outside] == BACKGROUND)
    # an edge that goes on is followed by the next one in the list, seen in its direction
    begins = np.ones(len(edges), dtype=np.bool_)
    if forward > 0:
        begins[1:] = ~goes_on[:-1]
    else:
        begins[:-1] = ~goes_on[1:]
    first, last = edges[begins], edges[~goes_on]
    if transposed:
        first, last = ((pixel % row) * step + pixel // row for pixel in (first, last))
    return first, last


def _numbers_of(target: Ints, onward: Ints, first: Ints, direction: Ints, flat: NDArray[np.uint8]) -> Ints:
    """Number of the run that begins with each target edge; −1 for edges of other plates."""
    numbers = np.full(len(target), _NONE, dtype=np.int32)
    run_at = np.empty(flat.size, dtype=np.int32)
    for heading in range(4):
        runs = np.flatnonzero(direction == heading)
        run_at[first[runs]] = runs
        asking = np.flatnonzero((onward == heading) & (flat[target] == INSIDE))
        numbers[asking] = run_at[target[asking]]
    return numbers


def _offsets(steps: tuple[tuple[int, int], ...], row: int) -> Ints:
    return np.array([y * row + x for y, x in steps], dtype=np.int32)

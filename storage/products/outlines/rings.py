"""Rings: closed sequences of vertices or of pieces of an outline, in order, as arrays of all rings at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Rings and chains of linked elements.

    Attributes:
        order: the elements, one ring or chain after the other, each in its own order.
        offsets: where in `order` each begins, and the end of the last.
        is_ring: whether the last element of each leads to its first.
    """

    order: Ints
    offsets: Ints
    is_ring: NDArray[np.bool_]

    @property
    def sizes(self) -> Ints:
        """Elements of each."""
        return np.diff(self.offsets)

    @property
    def firsts(self) -> Ints:
        """First element of each."""
        return self.order[self.offsets[:-1]]


def sequences(following: Ints) -> Sequences:
    """Rings and chains of elements each of which leads to one other at most, and is led to by one at most.

    Args:
        following: number of the element after each; −1 at the end of a chain.
    """
    count = len(following)
    if count == 0:
        return Sequences(order=following, offsets=np.zeros(1, dtype=np.int64), is_ring=np.zeros(0, dtype=np.bool_))
    linked = np.flatnonzero(following >= 0)
    preceding = np.full(count, -1, dtype=np.int32)
    preceding[following[linked]] = linked
    number, component = connected_components(_graph(following), directed=True, connection="weak")
    # a chain begins where nothing leads; a ring may begin anywhere
    first = np.empty(number, dtype=np.int64)
    first[component[::-1]] = np.arange(count)[::-1]
    heads, ends = np.flatnonzero(preceding < 0), np.flatnonzero(following < 0)
    first[component[heads]] = heads
    last = preceding[first]
    last[component[ends]] = ends
    is_ring = np.ones(number, dtype=np.bool_)
    is_ring[component[ends]] = False
    # each led to the next makes one path, which is walked once
    path = following.copy()
    path[last[:-1]] = first[1:]
    path[last[-1]] = -1
    order = breadth_first_order(_graph(path), first[0], directed=True, return_predecessors=False)
    sizes = np.bincount(component, minlength=number)
    return Sequences(order=order, offsets=offsets_of(sizes), is_ring=is_ring)


def _graph(following: Ints) -> csr_array:
    linked = following >= 0
    rows = np.zeros(len(following) + 1, dtype=np.int32)
    np.cumsum(linked, out=rows[1:])
    columns = following[linked].astype(np.int32)
    return csr_array((np.ones(len(columns)), columns, rows), shape=(len(following), len(following)))


def offsets_of(sizes: NDArray[np.integer]) -> Ints:
    """Where parts of these sizes begin in what they are parts of, and the end of the last: (n + 1,)."""
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def spread(begins: Ints, sizes: Ints) -> Ints:
    """Indices of all elements of parts that begin here and have these sizes, part after part."""
    offsets = offsets_of(sizes)
    return np.repeat(begins - offsets[:-1], sizes) + np.arange(offsets[-1])


def summed(values: NDArray[np.float64], owner: Ints, count: int) -> NDArray[np.float64]:
    """(count,), sums of the values of each owner, in their order."""
    return np.bincount(owner, weights=values, minlength=count).astype(np.float64, copy=False)


@dataclass(frozen=True, kw_only=True)
class Rings:
    """Rings of vertices, each from its smallest vertex (y, then x) on, sorted by owner, then by that vertex.

    Of the rings of one area the shell is the first: no vertex of a hole comes before the shell's smallest.

    Attributes:
        owner: (n,), number of the area that a ring belongs to.
        offsets: (n + 1,), where each ring's vertices begin.
        y, x: vertices in pixels from the grid's upper-left corner, the first of a ring not repeated.
    """

    owner: Ints
    offsets: Ints
    y: Ints
    x: Ints

    @property
    def sizes(self) -> Ints:
        """(n,), vertices of each ring."""
        return np.diff(self.offsets)

    def of_owners(self, chosen: NDArray[np.bool_], *, number: Ints) -> Rings:
        """The rings of some owners, with new numbers of these; both arrays have one element an owner."""
        rings = np.flatnonzero(chosen[self.owner])
        sizes = self.sizes[rings]
        vertices = spread(self.offsets[rings], sizes)
        return Rings(owner=number[self.owner[rings]], offsets=offsets_of(sizes), y=self.y[vertices], x=self.x[vertices])


def canonical_rings(owner: Ints, offsets: Ints, y: Ints, x: Ints) -> Rings:
    """Rings in their one order, of rings that begin anywhere and visit no vertex twice."""
    sizes = np.diff(offsets)
    if len(sizes) == 0:
        return Rings(owner=owner, offsets=offsets, y=y, x=x)
    place = (y.astype(np.int64) << 32) | x
    smallest = np.minimum.reduceat(place, offsets[:-1])
    shift = np.flatnonzero(place == np.repeat(smallest, sizes)) - offsets[:-1]
    rings = np.lexsort((smallest, owner))
    sizes = sizes[rings]
    sorted_offsets = offsets_of(sizes)
    within = np.arange(sorted_offsets[-1]) - np.repeat(sorted_offsets[:-1], sizes)
    turned = within + np.repeat(shift[rings], sizes)
    turned -= np.where(turned < np.repeat(sizes, sizes), 0, np.repeat(sizes, sizes))
    vertices = np.repeat(offsets[:-1][rings], sizes) + turned
    return Rings(owner=owner[rings], offsets=sorted_offsets, y=y[vertices], x=x[vertices])

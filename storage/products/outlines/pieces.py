"""Pieces of outlines that enter a plate and leave it, and how they become rings when their area is complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from storage.products.outlines.ground import Ground
from storage.products.outlines.rings import Ints, Rings, canonical_rings, offsets_of, sequences, spread, summed


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Pieces of outlines, n of them.

    Keys name unit edges of the whole grid (:class:`storage.products.outlines.tracing.Edges`).

    Attributes:
        area: (n,), number of the area that each bounds.
        start: (n,), key of its first edge.
        left, cross: (n,), keys of the edges that may follow it: the second where pixel and diagonal pixel belong to
            one area, and −1 where there is no such question.
        loop_m2: (n,), area on the ellipsoid between the piece and the geodesic from its last corner to its first.
        sizes: (n,), corners of each; 0 where it goes straight through the plate.
        y, x: corners, one piece after the other, pixels from the grid's upper-left corner.
    """

    area: Ints
    start: Ints
    left: Ints
    cross: Ints
    loop_m2: NDArray[np.float64]
    sizes: Ints
    y: Ints
    x: Ints

    def __len__(self) -> int:
        return len(self.area)

    def chosen(self, indices: Ints, *, area: Ints) -> Pieces:
        """Copies of some of the pieces, of areas with other numbers."""
        sizes = self.sizes[indices]
        corners = spread(offsets_of(self.sizes)[indices], sizes)
        return Pieces(
            area=area,
            start=self.start[indices],
            left=self.left[indices],
            cross=self.cross[indices],
            loop_m2=self.loop_m2[indices],
            sizes=sizes,
            y=self.y[corners],
            x=self.x[corners],
        )


def together(parts: Sequence[Pieces]) -> Pieces:
    """All pieces of one or more parts, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    return Pieces(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Pieces)}
    )


def joined_rings(pieces: Pieces, ground: Ground, *, areas: int) -> tuple[Rings, NDArray[np.float64]]:
    """The rings that the pieces of complete areas make, and for each of 0 to `areas` − 1 what they enclose.

    The area that a ring encloses is that of its pieces' loops and of the polygon of their first and last corners: an
    edge that closes a loop is an edge of that polygon, walked the other way. So it costs by pieces, not by corners.

    Returns:
        Rings, and (areas,) m² on the ellipsoid with the sign of shells: holes are taken off.
    """
    by_start = np.argsort(pieces.start)
    starts = pieces.start[by_start]
    follower = _piece_at(pieces.left, by_start, starts)
    crossing = np.flatnonzero(pieces.cross >= 0)
    other = _piece_at(pieces.cross[crossing], by_start, starts)
    same = (other >= 0) & (pieces.area[other] == pieces.area[crossing])
    follower[crossing[same]] = other[same]
    linked = sequences(follower)
    assert linked.is_ring.all(), "an outline of a complete area is open"

    order = linked.order
    ring = np.repeat(np.arange(len(linked.is_ring)), linked.sizes)  # of each piece
    sizes = pieces.sizes[order]
    begins = offsets_of(pieces.sizes)[order]
    corners = spread(begins, sizes)
    offsets = offsets_of(np.bincount(ring, weights=sizes, minlength=len(linked.is_ring)).astype(np.int64))
    owner = pieces.area[linked.firsts]
    rings = canonical_rings(owner, offsets, pieces.y[corners], pieces.x[corners])

    turning = np.flatnonzero(sizes > 0)
    ends = np.stack([begins[turning], begins[turning] + sizes[turning] - 1], axis=1).ravel()
    hulls = offsets_of(2 * np.bincount(ring[turning], minlength=len(owner)))
    enclosed = summed(pieces.loop_m2[order], ring, len(owner))
    enclosed += ground.signed_areas(pieces.y[ends], pieces.x[ends], hulls)
    return rings, summed(enclosed, owner, areas)


def _piece_at(keys: Ints, by_start: Ints, starts: Ints) -> Ints:
    """Number of the piece that begins with each edge; −1 where none does."""
    places = np.minimum(np.searchsorted(starts, keys), len(starts) - 1)
    return np.where(starts[places] == keys, by_start[places], -1)

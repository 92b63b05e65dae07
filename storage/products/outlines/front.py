"""Changed areas that are open along a row of plates: which parts of them belong together, and what is held of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from storage.errors import IntegrityError
from storage.products.outlines.ground import Ground, with_holes
from storage.products.outlines.parts import ROWS, OutlinePart, rows_of
from storage.products.outlines.pieces import Pieces, joined_rings, together
from storage.products.outlines.rings import Ints, summed
from storage.products.plates import Plate

T = TypeVar("T")

_BYTES_A_TABLE = 1 << 28
_NOTHING: Ints = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class _Held:
    """What is held of an open area: sums over the pixels that were seen, holes and pieces of its outline."""

    pixels: int
    total: int
    highest: int
    first: int
    hole_m2: float
    holes: list[tuple[int, bytes]]
    pieces: list[Pieces]


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """Groups of open areas that belong together; one element a group, but for `of`, which has one an open area."""

    of: Ints
    goes_on: NDArray[np.bool_]
    pixels: Ints
    total: Ints
    highest: Ints
    first: Ints
    hole_m2: NDArray[np.float64]


class OpenFront:
    """Areas that may go on below the plates that were seen.

    Open areas are numbered anew in each row of plates: first those that are held, then those of the row's plates.
    """

    def __init__(self, ground: Ground, *, min_area_m2: float) -> None:
        self._ground, self._min_area_m2 = ground, min_area_m2
        self._held: list[_Held] = []
        self._below: dict[
            int, tuple[str, Ints]
        ] = {}  # by column of plates: name, area of each stretch at its lower edge
        self._row: list[tuple[Plate, OutlinePart]] = []

    def add(self, plate: Plate, part: OutlinePart) -> None:
        """The next plate of the row."""
        # what is closed is written already: only what is open is held
        self._row.append((plate, replace(part, closed=ROWS.empty_table())))

    def end_row(self) -> Iterator[pa.Table]:
        """Rows of the areas that end in this row of plates, by their first pixel."""
        row, self._row = self._row, []
        offsets = len(self._held) + np.cumsum([0, *(len(part.areas) for _, part in row)])
        groups = self._groups(row, offsets)
        holes, held_pieces = self._holes(row, groups), self._held_pieces(groups)
        pieces = together([part.pieces for _, part in row])
        group_of = groups.of[pieces.area + np.repeat(offsets[:-1], [len(part.pieces) for _, part in row])]

        ending = np.flatnonzero(~groups.goes_on)
        ending = ending[np.argsort(groups.first[ending])]
        rank = np.full(len(groups.goes_on), -1, dtype=np.int64)
        rank[ending] = np.arange(len(ending))
        closing = np.flatnonzero(~groups.goes_on[group_of])
        outlines = [pieces.chosen(closing, area=rank[group_of[closing]])]
        for group in ending.tolist():
            outlines += [replace(each, area=np.full(len(each), rank[group])) for each in held_pieces.pop(group, [])]
        self._hold(groups, holes, held_pieces, pieces, group_of)
        number = np.cumsum(groups.goes_on) - 1
        self._below = {
            plate.col: (plate.name, number[groups.of[part.below + offset]])
            for (plate, part), offset in zip(row, offsets[:-1], strict=True)
        }
        yield from self._rows(together(outlines), ending, groups, holes)

    def require_empty(self) -> None:
        """No area goes on below the last row.

        Raises:
            IntegrityError: one does.
        """
        for name, stretches in self._below.values():
            _require_match(name, _NOTHING, "the map's edge", stretches)

    def _groups(self, row: list[tuple[Plate, OutlinePart]], offsets: Ints) -> _Groups:
        one: list[Ints] = [_NOTHING]
        other: list[Ints] = [_NOTHING]
        below: list[Ints] = [_NOTHING]
        before, stretches = "the map's edge", _NOTHING
        for (plate, part), offset in zip(row, offsets[:-1], strict=True):
            name, above = self._below.get(plate.col, ("the map's edge", _NOTHING))
            _require_match(plate.name, part.above, name, above)
            _require_match(plate.name, part.left, before, stretches)
            one += [above, stretches]
            other += [part.above + offset, part.left + offset]
            below.append(part.below + offset)
            before, stretches = plate.name, part.right + offset
        _require_match(before, stretches, "the map's edge", _NOTHING)

        pairs = np.concatenate(one), np.concatenate(other)
        size = int(offsets[-1])
        count, of = connected_components(
            coo_array((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(size, size)), directed=False
        )
        of = of.astype(np.int64)
        goes_on = np.zeros(count, dtype=np.bool_)
        goes_on[of[np.concatenate(below)]] = True

        def values(name: str) -> NDArray[Any]:
            held = np.array(
                [getattr(each, name) for each in self._held], dtype=np.float64 if name == "hole_m2" else np.int64
            )
            return np.concatenate([held, *(getattr(part.areas, name) for _, part in row)])

        sums = {name: np.zeros(count, dtype=np.int64) for name in ("pixels", "total", "highest")}
        np.add.at(sums["pixels"], of, values("pixels"))
        np.add.at(sums["total"], of, values("total"))
        np.maximum.at(sums["highest"], of, values("highest"))
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, of, values("first"))
        return _Groups(
            of=of,
            goes_on=goes_on,
            first=first,
            hole_m2=summed(values("hole_m2"), of, count),
            **sums,
        )

    def _holes(self, row: list[tuple[Plate, OutlinePart]], groups: _Groups) -> dict[int, list[tuple[int, bytes]]]:
        """By group, in the order of plates."""
        holes = _merged([each.holes for each in self._held], groups.of)
        areas = (hole for _, part in row for hole in part.areas.holes)
        for group, hole in zip(groups.of[len(self._held) :].tolist(), areas, strict=True):
            if hole[0]:
                holes.setdefault(group, []).append(hole)
        return holes

    def _held_pieces(self, groups: _Groups) -> dict[int, list[Pieces]]:
        return _merged([each.pieces for each in self._held], groups.of)

    def _hold(
        self,
        groups: _Groups,
        holes: dict[int, list[tuple[int, bytes]]],
        held_pieces: dict[int, list[Pieces]],
        pieces: Pieces,
        group_of: Ints,
    ) -> None:
        """Hold the groups that go on, with copies of their pieces, so that the parts of the row can be forgotten."""
        staying = np.flatnonzero(groups.goes_on[group_of])
        staying = staying[np.argsort(group_of[staying], kind="stable")]
        going = np.flatnonzero(groups.goes_on)
        ends = np.searchsorted(group_of[staying], going, side="right")
        begins = np.searchsorted(group_of[staying], going, side="left")
        self._held = []
        for group, begin, end in zip(going.tolist(), begins.tolist(), ends.tolist(), strict=True):
            outlines = held_pieces.get(group, [])
            if begin < end:
                outlines.append(pieces.chosen(staying[begin:end], area=np.zeros(end - begin, dtype=np.int64)))
            self._held.append(
                _Held(
                    pixels=int(groups.pixels[group]),
                    total=int(groups.total[group]),
                    highest=int(groups.highest[group]),
                    first=int(groups.first[group]),
                    hole_m2=float(groups.hole_m2[group]),
                    holes=holes.get(group, []),
                    pieces=outlines,
                )
            )

    def _rows(
        self, pieces: Pieces, ending: Ints, groups: _Groups, holes: dict[int, list[tuple[int, bytes]]]
    ) -> Iterator[pa.Table]:
        rings, enclosed = joined_rings(pieces, self._ground, areas=len(ending))
        area_m2 = np.abs(enclosed + groups.hole_m2[ending])
        large = area_m2 >= self._min_area_m2
        kept = np.flatnonzero(large)
        shells = self._ground.polygons(rings.of_owners(large, number=np.cumsum(large) - 1), len(kept))
        ending, area_m2 = ending[kept], area_m2[kept]
        pixels, total, highest = groups.pixels[ending], groups.total[ending], groups.highest[ending]
        begin, size, polygons = 0, 0, list[bytes]()
        for at, (group, shell) in enumerate(zip(ending.tolist(), shells, strict=True)):
            # holes are let go of as soon as they are part of a polygon: an area may have a gigabyte of them
            polygon = with_holes(shell, holes.pop(group, []), pixels=int(pixels[at]))
            if polygons and size + len(polygon) > _BYTES_A_TABLE:
                part = slice(begin, at)
                yield rows_of(polygons, area_m2[part], pixels=pixels[part], total=total[part], highest=highest[part])
                begin, size, polygons = at, 0, []
            polygons.append(polygon)
            size += len(polygon)
        rest = slice(begin, None)
        yield rows_of(polygons, area_m2[rest], pixels=pixels[rest], total=total[rest], highest=highest[rest])


def _merged(lists: list[list[T]], of: Ints) -> dict[int, list[T]]:
    """Lists by group; the longest of a group takes up the others, so that a long one is not copied row after row."""
    merged: dict[int, list[T]] = {}
    for group, each in zip(of[: len(lists)].tolist(), lists, strict=True):
        one, other = merged.get(group, []), each
        if len(one) < len(other):
            one, other = other, one
        one += other
        merged[group] = one
    return merged


def _require_match(name: str, stretches: Ints, neighbour: str, others: Ints) -> None:
    if len(stretches) != len(others):
        raise IntegrityError(
            f"the outlines of plate {name} and of {neighbour} beside it are not of one map: changed areas go on across "
            f"their edge in {len(stretches)} and {len(others)} places"
        )

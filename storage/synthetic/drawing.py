"""Draw a synthetic landscape on one cell: which material each pixel shows at each date, and how it is lit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from storage.synthetic.landscape import RIVER_HALF, ROAD_HALF, STREET_HALF, Building, Kind, Land
from storage.synthetic.noise import Float, Sun, TreeTile

SIZE = 258
"""Side of a canvas, pixels: a cell of 256 with one pixel more on each side."""

# Materials that every palette begins with: colour and share of living plants.
MATERIALS = {
    "asphalt": ((106, 106, 110), 0.0),
    "marking": ((186, 186, 182), 0.0),
    "pavement": ((150, 146, 140), 0.0),
    "verge": ((112, 120, 76), 0.6),
    "track": ((158, 142, 112), 0.1),
    "water": ((50, 72, 76), 0.0),
    "shore": ((92, 98, 66), 0.5),
    "tree 0": ((52, 76, 42), 0.35),
    "tree 1": ((60, 86, 46), 0.6),
    "tree 2": ((68, 94, 50), 1.0),
    "tree 3": ((48, 68, 44), 0.15),
    "tree 4": ((76, 98, 52), 1.3),
    "tree 5": ((58, 80, 38), 0.7),
}
_NUMBER = {name: number for number, name in enumerate(MATERIALS)}
_COLOURS = np.array([colour for colour, _ in MATERIALS.values()], dtype=np.float32)
_GREEN = np.array([green for _, green in MATERIALS.values()], dtype=np.float32)


@dataclass(kw_only=True)
class Canvas:
    """One cell while it is drawn. Layers with a leading 2 hold the date before and the one after.

    Attributes:
        row, col: the canvas's upper-left pixel in the mosaic.
        u, v: (SIZE, SIZE) each pixel's place on the map.
        material: (2, SIZE, SIZE) number of the palette's row.
        light: (2, SIZE, SIZE) brightness, about 1.
        shadow: (2, SIZE, SIZE) True = in shadow.
        changed: (SIZE, SIZE) the truth.
        density: (SIZE, SIZE) share of the trees that stand here, 0 … 1.
    """

    row: int
    col: int
    u: Float
    v: Float
    material: NDArray[np.int16] = field(default_factory=lambda: np.zeros((2, SIZE, SIZE), dtype=np.int16))
    light: Float = field(default_factory=lambda: np.ones((2, SIZE, SIZE), dtype=np.float32))
    shadow: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((2, SIZE, SIZE), dtype=bool))
    changed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((SIZE, SIZE), dtype=bool))
    density: Float = field(default_factory=lambda: np.zeros((SIZE, SIZE), dtype=np.float32))
    _colours: list[tuple[Float, Float]] = field(default_factory=lambda: [(_COLOURS, _COLOURS)])
    _green: list[tuple[Float, Float]] = field(default_factory=lambda: [(_GREEN, _GREEN)])
    _rows: int = len(MATERIALS)

    def add(self, colours: tuple[Float, Float], green: tuple[Float, Float]) -> int:
        """Add palette rows, (N, 3) colours and (N,) shares of living plants for both dates; the first's number."""
        first = self._rows
        self._colours.append(colours)
        self._green.append(green)
        self._rows += len(colours[0])
        return first

    def palette(self, date: int) -> tuple[Float, Float]:
        """Colours (3 columns, each contiguous) and shares of living plants by material."""
        colours = np.concatenate([pair[date] for pair in self._colours])
        return np.asfortranarray(colours), np.concatenate([pair[date] for pair in self._green])

    def draw_trees(self, trees: TreeTile) -> None:
        """Trees wherever `density` says, and their shadows."""
        if not self.density.any():
            return
        crown = trees.rank.view(row=self.row, col=self.col, size=SIZE) < self.density
        hue = trees.hue.view(row=self.row, col=self.col, size=SIZE)
        np.copyto(self.material, (hue + _NUMBER["tree 0"]).astype(np.int16), where=crown)
        for date in range(2):
            np.copyto(self.light[date], trees.shade[date].view(row=self.row, col=self.col, size=SIZE), where=crown)
            cast = trees.shadow[date].view(row=self.row, col=self.col, size=SIZE) < self.density
            self.shadow[date] = cast & ~crown
        self.changed &= ~crown


def draw_ground(canvas: Canvas, land: Land) -> None:
    """Parcels with their furrows, margins and streets; wanted tree density."""
    place = _place(canvas, land)
    if place is None:
        return
    window, inside = place
    u, v = canvas.u[window] - np.float32(land.left), canvas.v[window] - np.float32(land.top)
    across, along = (u, v) if land.across_u else (v, u)
    strip, edge = _part(across, land.strips)
    parcel, side = _parts_of(along, strip, land.parcels)
    number = strip * (land.parcels.shape[1] - 1) + parcel

    before, after = land.crops
    first = canvas.add((before.colour, after.colour), (before.green, after.green))
    np.copyto(canvas.material[:, *window], (number + first).astype(np.int16), where=inside)
    if land.kind is Kind.FARM:
        light = _furrows(u, v, number, before.wave, before.contrast)
        np.copyto(canvas.light[0][window], light, where=inside)
        resown = np.take(land.resown, number)
        if resown.any():
            light = _furrows(u, v, number, after.wave, after.contrast)
        np.copyto(canvas.light[1][window], light, where=inside)
        margin = np.minimum(edge, side) < 2.2
        np.copyto(canvas.changed[window], resown & ~margin, where=inside)
        margin &= inside
        np.copyto(canvas.material[:, *window], _NUMBER["verge"], where=margin)
        np.copyto(canvas.light[:, *window], 1, where=margin)
        nearest = np.take(land.hedged, _nearest(across, land.strips))
        density = np.where((edge < 7) & nearest, np.float32(0.6), np.float32(0.003))
    elif land.kind is Kind.TOWN:
        for name, half in (("pavement", STREET_HALF + 3), ("asphalt", STREET_HALF)):
            np.copyto(canvas.material[:, *window], _NUMBER[name], where=inside & (edge < half))
        np.copyto(canvas.material[:, *window], _NUMBER["verge"], where=inside & (side < 1.5) & (edge > STREET_HALF + 3))
        density = np.where(edge > 14, np.float32(0.13), np.float32(0))
    else:
        density = np.full(u.shape, 0.96, dtype=np.float32)
    np.copyto(canvas.density[window], density, where=inside)


def draw_river(canvas: Canvas, distance: Float) -> None:
    """Water near the middle of a river, trees on its banks."""
    bank = distance < RIVER_HALF + 26
    if not bank.any():
        return
    water = distance < RIVER_HALF
    shore = distance < RIVER_HALF + 4
    np.copyto(canvas.density, 0.5, where=bank)
    np.copyto(canvas.density, 0, where=shore)
    np.copyto(canvas.material, _NUMBER["shore"], where=shore)
    np.copyto(canvas.material, _NUMBER["water"], where=water)
    np.copyto(canvas.light, 1, where=shore)
    canvas.changed &= ~shore


def draw_roads(canvas: Canvas, land: Land) -> None:
    """The half of each road around the block that lies on it."""
    place = _place(canvas, land)
    if place is None:
        return
    window, inside = place
    sides = (
        canvas.u[window] - np.float32(land.left),
        np.float32(land.right) - canvas.u[window],
        canvas.v[window] - np.float32(land.top),
        np.float32(land.bottom) - canvas.v[window],
    )
    near = [bool(distance.min() < ROAD_HALF + 5) for distance in sides]
    if not any(near):
        return
    road = np.zeros((2, *inside.shape), dtype=bool)
    verge = np.zeros((2, *inside.shape), dtype=bool)
    marking = np.zeros((2, *inside.shape), dtype=bool)
    for n, distance in enumerate(sides):
        if not near[n]:
            continue
        run = sides[2] if n < 2 else sides[0]
        for date in range(2):
            if land.roads[n, date]:
                road[date] |= distance < ROAD_HALF
                verge[date] |= distance < ROAD_HALF + 4
                marking[date] |= (distance < 0.8) & (np.mod(run, 24) < 12)
        if not land.roads[n].any():
            np.copyto(canvas.material[:, *window], _NUMBER["verge"], where=inside & (distance < 4))
    for date in range(2):
        material, light = canvas.material[date][window], canvas.light[date][window]
        np.copyto(material, _NUMBER["verge"], where=inside & verge[date])
        np.copyto(material, _NUMBER["asphalt"], where=inside & road[date])
        np.copyto(material, _NUMBER["marking"], where=inside & road[date] & marking[date])
        np.copyto(light, 1, where=inside & verge[date])
    np.copyto(canvas.density[window], 0, where=inside & (verge[0] | verge[1]))
    # Where a road is at both dates nothing else can have changed; where it is at one, it has.
    np.copyto(canvas.changed[window], road[0] ^ road[1], where=inside & (verge[0] | verge[1]))


def draw_buildings(canvas: Canvas, lands: list[Land], *, date: int, sun: Sun, angle: float) -> None:
    """Roofs and shadows of what stands at one date; footprints of what stands at one date only are changes."""
    east, south = sun.toward
    sun_u, sun_v = math.cos(angle) * east - math.sin(angle) * south, math.sin(angle) * east + math.cos(angle) * south
    standing = [b for land in lands for b in land.buildings if (b.before, b.after)[date] and _reaches(canvas, b, sun)]
    roofs = []
    for building in standing:
        cosine, sine = math.cos(building.angle), math.sin(building.angle)
        # The light in the building's own axes: along its length and across it.
        light = (cosine * sun_u + sine * sun_v, -sine * sun_u + cosine * sun_v)
        window = _around(canvas, building, building.height * sun.reach)
        du, dv = canvas.u[window] - np.float32(building.u), canvas.v[window] - np.float32(building.v)
        p, q = cosine * du + sine * dv, -sine * du + cosine * dv
        canvas.shadow[date][window] |= _shadowed(p, q, building, light, sun.reach)
        roofs.append((building, window, p, q, light[1]))
    for building, window, p, q, facing in roofs:
        width = np.float32(building.half_width) - np.abs(q)
        roof = (np.abs(p) < building.half_length) & (width > 0)
        colour = np.array([building.colour], dtype=np.float32)
        number = canvas.add((colour, colour), (np.zeros(1, np.float32), np.zeros(1, np.float32)))
        canvas.material[date][window][roof] = number
        canvas.light[date][window][roof] = _roof_light(building, q, width, facing)[roof]
        canvas.shadow[date][window][roof] = False
        canvas.changed[window][roof] = building.before != building.after


def _roof_light(building: Building, q: Float, width: Float, facing: float) -> Float:
    if building.gable:
        light = np.where(q > 0, np.float32(1 + 0.24 * facing), np.float32(1 - 0.24 * facing))
        light += 0.035 * np.sin(2.1 * q)
        return np.asarray(np.where(np.abs(q) < 0.9, np.float32(1.15), light), dtype=np.float32)
    return np.where(width < 1.6, np.float32(1.16), np.float32(0.97))


def _shadowed(p: Float, q: Float, building: Building, light: tuple[float, float], reach: float) -> NDArray[np.bool_]:
    """Points from which the way toward the sun, as long as the shadow, meets the footprint."""
    length = building.height * reach
    enter, leave = np.zeros_like(p), np.ones_like(p)
    for position, half, direction in ((p, building.half_length, light[0]), (q, building.half_width, light[1])):
        step = direction * length
        step = math.copysign(max(abs(step), 1e-3), step)
        one, other = (-half - position) / step, (half - position) / step
        np.maximum(enter, np.minimum(one, other), out=enter)
        np.minimum(leave, np.maximum(one, other), out=leave)
    return enter < leave


def _reach(building: Building, shadow: float) -> int:
    return math.ceil(math.hypot(building.half_length, building.half_width) * 1.1 + shadow) + 3


def _reaches(canvas: Canvas, building: Building, sun: Sun) -> bool:
    reach = _reach(building, building.height * sun.reach)
    row, col = building.row - canvas.row, building.col - canvas.col
    return -reach < row < SIZE + reach and -reach < col < SIZE + reach


def _around(canvas: Canvas, building: Building, shadow: float) -> tuple[slice, slice]:
    reach = _reach(building, shadow)
    row, col = round(building.row) - canvas.row, round(building.col) - canvas.col
    return slice(max(row - reach, 0), max(row + reach, 0)), slice(max(col - reach, 0), max(col + reach, 0))


def _place(canvas: Canvas, land: Land) -> tuple[tuple[slice, slice], NDArray[np.bool_]] | None:
    """The smallest window of the canvas that holds all of the block's pixels, and which of its pixels those are."""
    inside = (canvas.u >= land.left) & (canvas.u < land.right) & (canvas.v >= land.top) & (canvas.v < land.bottom)
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return None
    window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1))
    return window, inside[window]


def _part(position: Float, edges: NDArray[np.float64]) -> tuple[NDArray[np.intp], Float]:
    """Which part each position lies in, clipped to those there are, and how far from the nearest edge it is."""
    low, high = np.searchsorted(edges, [float(position.min()), float(position.max())])
    first, last = max(int(low) - 1, 0), min(int(high), len(edges) - 1)
    part = np.full(position.shape, first, dtype=np.intp)
    distance = np.full(position.shape, np.inf, dtype=np.float32)
    for k in range(first, last + 1):
        offset = position - np.float32(edges[k])
        if first < k < len(edges) - 1:
            part += offset >= 0
        np.minimum(distance, np.abs(offset), out=distance)
    return part, distance


def _parts_of(position: Float, strip: NDArray[np.intp], edges: NDArray[np.float64]) -> tuple[NDArray[np.intp], Float]:
    """The same where every strip has edges of its own, (S, P + 1)."""
    near = edges[int(strip.min()) : int(strip.max()) + 1]
    first = max(int((near <= position.min()).all(axis=0).sum()) - 1, 0)
    last = min(int((near <= position.max()).any(axis=0).sum()), edges.shape[1] - 1)
    part = np.full(position.shape, first, dtype=np.intp)
    distance = np.full(position.shape, np.inf, dtype=np.float32)
    table = edges.astype(np.float32)
    for k in range(first, last + 1):
        offset = position - np.take(table[:, k], strip)
        if first < k < edges.shape[1] - 1:
            part += offset >= 0
        np.minimum(distance, np.abs(offset), out=distance)
    return part, distance


def _nearest(position: Float, edges: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number of the edge nearest to each position."""
    return _part(position, np.concatenate([[-np.inf], (edges[1:] + edges[:-1]) / 2, [np.inf]]))[0]


def _furrows(u: Float, v: Float, number: NDArray[np.intp], wave: Float, contrast: Float) -> Float:
    phase = np.take(wave[:, 0], number) * u
    phase += np.take(wave[:, 1], number) * v
    np.sin(phase, out=phase)
    phase *= np.take(contrast, number)
    phase += 1
    return phase

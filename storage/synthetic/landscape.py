"""What stands where in a synthetic landscape, before and after: blocks of land between roads, their parcels, buildings.

Everything is described in the plane of the map (u, v): pixels of the mosaic, turned and gently bent, so that roads and
fields run neither straight nor along the pixels. A block of land is a pure function of (seed, i, j).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from storage.synthetic.noise import Float, LatticeNoise, uniform

SPACING = 1080.0
"""Mean distance of the roads that part the blocks, pixels."""

BEND = 260.0
"""Pixels by which the map is bent, times a noise of about ±0.5."""

ROAD_HALF = 9.0
STREET_HALF = 6.5
"""Half widths of roads and of the streets in towns, pixels."""

RIVER_HALF = 24.0
"""Half width of rivers, pixels."""

SHARE_RESOWN = 0.075
SHARE_BUILT = 0.12
"""Shares of fields that are re-sown, of building plots where a building appears, and as many where one vanishes."""


class Kind(IntEnum):
    """What a block of land is used for."""

    FARM = 0
    WOOD = 1
    TOWN = 2


@dataclass(frozen=True, kw_only=True)
class Crops:
    """How the parcels of one date look, one row a parcel.

    Attributes:
        colour: (N, 3) red, green, blue.
        green: (N,) share of living plants, which the season colours: 0 … 1.
        contrast: (N,) of the furrows, a share of the brightness.
        wave: (N, 2) of the furrows along u and v, radians a pixel.
    """

    colour: Float
    green: Float
    contrast: Float
    wave: Float


@dataclass(frozen=True, kw_only=True)
class Building:
    """A rectangular building.

    Attributes:
        u, v: centre on the map, pixels.
        row, col: the same point in the mosaic.
        angle: between its long side and the u axis, radians.
        half_length, half_width, height: pixels.
        gable: a pitched roof with its ridge along the long side, else a flat one.
        colour: red, green, blue.
        before, after: whether it stands.
    """

    u: float
    v: float
    row: float
    col: float
    angle: float
    half_length: float
    half_width: float
    height: float
    gable: bool
    colour: tuple[float, float, float]
    before: bool
    after: bool


@dataclass(frozen=True, kw_only=True)
class Land:
    """One block of land.

    Attributes:
        left, right, top, bottom: edges of the block on the map, pixels.
        across_u: strips are counted along u (and parcels of a strip along v), else the other way round.
        strips: (S + 1,) where strips begin and end, from 0.
        parcels: (S, P + 1) where the parcels of a strip begin and end, from 0; parcel p of strip s is row s·P + p of
            the crops.
        hedged: (S + 1,) whether a hedge stands along the strip's edge.
        crops: (before, after).
        resown: (S·P,) True where a field was re-sown.
        roads: (4, 2) whether the road at left, right, top, bottom is there, before and after.
        buildings: all that stand before or after.
    """

    kind: Kind
    left: float
    right: float
    top: float
    bottom: float
    across_u: bool
    strips: NDArray[np.float64]
    parcels: NDArray[np.float64]
    hedged: NDArray[np.bool_]
    crops: tuple[Crops, Crops]
    resown: NDArray[np.bool_]
    roads: NDArray[np.bool_]
    buildings: tuple[Building, ...]


# colour, green, furrow contrast, furrow period in pixels
_CROPS = (
    ((146, 120, 92), 0.05, 0.10, 7.0),  # harrowed
    ((112, 90, 70), 0.0, 0.16, 9.0),  # ploughed
    ((188, 168, 112), 0.08, 0.08, 6.0),  # ripe, or stubble
    ((128, 132, 80), 0.55, 0.18, 8.0),  # rows of young plants
    ((76, 106, 54), 1.0, 0.07, 6.0),  # full-grown
    ((108, 136, 66), 0.9, 0.03, 11.0),  # meadow
    ((174, 164, 66), 0.5, 0.05, 6.0),  # in flower
)
_SHARES = np.cumsum([0.15, 0.13, 0.2, 0.14, 0.2, 0.14, 0.04])
# What follows each crop where a field is re-sown: those that nobody takes for another season of the same one.
_FOLLOWS = ((2, 4, 5), (2, 4, 5), (1, 4, 0), (1, 2, 5), (0, 1, 2), (0, 1, 2), (1, 4, 0))
_ROOFS = ((158, 88, 66), (142, 76, 60), (176, 112, 84), (96, 92, 94), (120, 104, 92), (190, 186, 180), (210, 208, 204))


class Landscape:
    """The blocks of land of one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.angle = float(np.deg2rad(8 + 74 * uniform(seed, 10)))
        self._river = LatticeNoise(seed=seed, stream=3, spacing=1900)
        self._bend = tuple(LatticeNoise(seed=seed, stream=stream, spacing=1500) for stream in (1, 2))
        self.land = lru_cache(maxsize=256)(self._land)

    def to_map(self, *, row: int, col: int, size: int) -> tuple[Float, Float]:
        """u and v of the pixels of a square, (size, size) each."""
        ys, xs = (row + np.arange(size))[:, None], (col + np.arange(size))[None, :]
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        u, v = (BEND * noise.patch(row=row, col=col, size=size) for noise in self._bend)
        u += (cosine * xs - sine * ys).astype(np.float32)
        v += (sine * xs + cosine * ys).astype(np.float32)
        return u, v

    def to_pixels(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Row and column of points of the map, (N,) each, to a fraction of a pixel."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        bent_u, bent_v = np.zeros_like(u), np.zeros_like(v)
        # The bend is gentle: each step leaves a fraction of the error.
        for _ in range(5):
            rows = cosine * (v - bent_v) - sine * (u - bent_u)
            cols = cosine * (u - bent_u) + sine * (v - bent_v)
            bent_u, bent_v = (BEND * noise.at(rows, cols) for noise in self._bend)
        return rows, cols

    def river(self, *, row: int, col: int, size: int) -> Float:
        """About how far each pixel of a square is from the middle of a river, pixels, (size, size)."""
        noise = self._river.patch(row=row - 1, col=col - 1, size=size + 2)
        slope = np.hypot(noise[2:, 1:-1] - noise[:-2, 1:-1], noise[1:-1, 2:] - noise[1:-1, :-2])
        return np.asarray(2 * np.abs(noise[1:-1, 1:-1]) / (slope + np.float32(1e-6)))

    def river_at(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same at single points, (N,)."""
        down = self._river.at(rows + 1, cols) - self._river.at(rows - 1, cols)
        across = self._river.at(rows, cols + 1) - self._river.at(rows, cols - 1)
        return np.asarray(2 * np.abs(self._river.at(rows, cols)) / (np.hypot(down, across) + 1e-6))

    def line(self, k: NDArray[np.int64] | int, *, vertical: bool) -> NDArray[np.float64]:
        """Where road line k runs: u of a vertical one, v of a horizontal one."""
        jitter = uniform(self._seed, 11 + vertical, k) - 0.5
        return np.asarray((np.asarray(k) + 0.45 * jitter) * SPACING)

    def lands(self, *, u: tuple[float, float], v: tuple[float, float]) -> list[Land]:
        """The blocks that share a point with the box u[0] … u[1], v[0] … v[1]."""

        def between(low: float, high: float, vertical: bool) -> range:
            k = np.arange(int(low // SPACING) - 2, int(high // SPACING) + 4)
            lines = self.line(k, vertical=vertical)
            first = int(np.searchsorted(lines, low, side="right")) - 1
            return range(int(k[first]), int(k[int(np.searchsorted(lines, high, side="left")) - 1]) + 1)

        return [self.land(i, j) for j in between(*v, vertical=False) for i in between(*u, vertical=True)]

    def _land(self, i: int, j: int) -> Land:
        draw = uniform(self._seed, 20, i, j, np.arange(8))
        left, right = (float(x) for x in self.line(np.arange(i, i + 2), vertical=True))
        top, bottom = (float(x) for x in self.line(np.arange(j, j + 2), vertical=False))
        # Towns and woods come in clusters: the same draw for neighbours, moved a little.
        near = uniform(self._seed, 21, np.arange(i - 1, i + 2)[:, None], np.arange(j - 1, j + 2)).mean()
        score = near + 0.5 * (draw[0] - 0.5)
        kind = Kind.TOWN if score > 0.65 else Kind.WOOD if score < 0.34 else Kind.FARM
        across_u = bool(draw[1] < 0.5)
        depth, length = (right - left, bottom - top) if across_u else (bottom - top, right - left)

        wide, long = {Kind.FARM: (170, 330), Kind.WOOD: (400, 500), Kind.TOWN: (2 * _PLOT_DEPTH, _PLOT_WIDTH)}[kind]
        count = max(round(depth / wide), 1)
        per_strip = max(round(length / long), 1)
        jitter = 0.0 if kind is Kind.TOWN else 0.5
        strips = depth * _edges(uniform(self._seed, 22, i, j, np.arange(count + 1)), jitter)
        rows = uniform(self._seed, 23, i, j, np.arange(count)[:, None], np.arange(per_strip + 1))
        parcels = length * np.stack([_edges(row, jitter) for row in rows])
        before, after, resown = self._crops(i, j, kind, count * per_strip, across_u=across_u)
        land = Land(
            kind=kind,
            left=left,
            right=right,
            top=top,
            bottom=bottom,
            across_u=across_u,
            strips=strips,
            parcels=parcels,
            hedged=uniform(self._seed, 25, i, j, np.arange(count + 1)) < (0.35 if kind is Kind.FARM else 0),
            crops=(before, after),
            resown=resown,
            roads=np.stack(
                [
                    self._road(i, j, vertical=True),
                    self._road(i + 1, j, vertical=True),
                    self._road(i, j, vertical=False),
                    self._road(i, j + 1, vertical=False),
                ]
            ),
            buildings=(),
        )
        return replace(land, buildings=self._buildings(i, j, land))

    def _road(self, i: int, j: int, *, vertical: bool) -> NDArray[np.bool_]:
        """(2,): whether the piece of road that begins at line i, j is there, before and after."""
        draw = float(uniform(self._seed, 13 + vertical, i, j))
        return np.array([draw < 0.72 or 0.79 <= draw < 0.86, draw < 0.79])

    def _crops(
        self, i: int, j: int, kind: Kind, count: int, *, across_u: bool
    ) -> tuple[Crops, Crops, NDArray[np.bool_]]:
        draw = uniform(self._seed, 24, i, j, np.arange(count)[:, None], np.arange(10))
        if kind is not Kind.FARM:
            base = (84, 92, 58) if kind is Kind.WOOD else (104, 118, 70)
            colour = (np.array(base) * (0.88 + 0.24 * draw[:, :1]) + 10 * (draw[:, 1:4] - 0.5)).astype(np.float32)
            plain = np.zeros(count, dtype=np.float32)
            crops = Crops(colour=colour, green=plain + 0.8, contrast=plain, wave=np.zeros((count, 2), np.float32))
            return crops, crops, np.zeros(count, dtype=bool)
        crop = np.searchsorted(_SHARES, draw[:, 0] * _SHARES[-1], side="right")
        resown = draw[:, 1] < SHARE_RESOWN
        following = np.array(_FOLLOWS)[crop, (draw[:, 2] * 3).astype(int)]
        # Furrows run along the strip, give or take; a plough that comes again may come from elsewhere.
        along = np.where(across_u, 0.0, np.pi / 2) + 0.25 * (draw[:, 3] - 0.5)
        again = np.where(resown, along + np.pi / 2 * (0.4 + 0.6 * draw[:, 4]), along)
        before = _crops(crop, along, draw[:, 5:9], draw[:, 9])
        after = _crops(np.where(resown, following, crop), again, draw[:, 5:9], draw[:, 9])
        return before, after, resown

    def _buildings(self, i: int, j: int, land: Land) -> tuple[Building, ...]:
        """Two rows of plots back to back in each strip of a town; a farmstead near a road in some farmland."""
        if land.kind is Kind.WOOD:
            return ()
        if land.kind is Kind.TOWN:
            strip, parcel = np.indices((len(land.strips) - 1, land.parcels.shape[1] - 1)).reshape(2, -1)
            near, far = land.strips[strip], land.strips[strip + 1]
            along = (land.parcels[strip, parcel] + land.parcels[strip, parcel + 1]) / 2
            across = np.concatenate([near + 52, far - 52])
            along = np.tile(along, 2)
            standing = 0.62
        else:
            yard = uniform(self._seed, 26, i, j, np.arange(3))
            if yard[0] > 0.55:
                return ()
            steps = np.arange(4)
            across = 90 + 105.0 * (steps // 2)
            along = (0.15 + 0.6 * yard[1]) * land.parcels[0, -1] + 120.0 * (steps % 2)
            standing = 0.5
        index = np.arange(len(across))
        draw = uniform(self._seed, 27, i, j, index[:, None], np.arange(10))
        across = across + 12 * (draw[:, 0] - 0.5)
        along = along + 14 * (draw[:, 1] - 0.5)
        u = land.left + (across if land.across_u else along)
        v = land.top + (along if land.across_u else across)
        rows, cols = self.to_pixels(u, v)
        dry = self.river_at(rows, cols) > RIVER_HALF + 60
        buildings = []
        for n in np.flatnonzero(dry & (draw[:, 2] < standing + 2 * SHARE_BUILT)):
            appears = standing <= draw[n, 2] < standing + SHARE_BUILT
            vanishes = draw[n, 2] >= standing + SHARE_BUILT
            barn = land.kind is Kind.FARM
            half_length = (26 + 16 * draw[n, 3]) if barn else (15 + 17 * draw[n, 3])
            half_width = min(half_length * (0.55 + 0.4 * draw[n, 4]), 26)
            tint = np.array(_ROOFS[int(draw[n, 5] * len(_ROOFS))]) * (0.9 + 0.2 * draw[n, 6])
            buildings.append(
                Building(
                    u=float(u[n]),
                    v=float(v[n]),
                    row=float(rows[n]),
                    col=float(cols[n]),
                    angle=float((np.pi / 2 if land.across_u ^ (draw[n, 7] < 0.3) else 0) + 0.12 * (draw[n, 8] - 0.5)),
                    half_length=float(half_length),
                    half_width=float(half_width),
                    height=float(9 + 9 * draw[n, 9]),
                    gable=bool(draw[n, 5] * len(_ROOFS) < 5),
                    colour=(float(tint[0]), float(tint[1]), float(tint[2])),
                    before=not appears,
                    after=not vanishes,
                )
            )
        return tuple(buildings)


_PLOT_WIDTH = 100
_PLOT_DEPTH = 110


def _edges(draw: NDArray[np.float64], jitter: float) -> NDArray[np.float64]:
    """(N + 1,) cuts of [0, 1] into N about equal parts, moved by up to `jitter` / 2 of a part."""
    count = len(draw) - 1
    moved = np.arange(count + 1) + jitter * (draw - 0.5)
    moved[0], moved[-1] = 0, count
    return moved / count


def _crops(
    crop: NDArray[np.int64], direction: NDArray[np.float64], tint: NDArray[np.float64], pace: NDArray[np.float64]
) -> Crops:
    colour = np.array([c[0] for c in _CROPS], dtype=np.float32)[crop]
    period = np.array([c[3] for c in _CROPS])[crop] * (0.85 + 0.3 * pace)
    wave = 2 * np.pi / period[:, None] * np.stack([np.cos(direction), np.sin(direction)], axis=1)
    return Crops(
        colour=np.asarray(colour * (0.92 + 0.16 * tint[:, :1]) + 12 * (tint[:, 1:] - 0.5), dtype=np.float32),
        green=np.array([c[1] for c in _CROPS], dtype=np.float32)[crop],
        contrast=np.array([c[2] for c in _CROPS], dtype=np.float32)[crop],
        wave=wave.astype(np.float32),
    )

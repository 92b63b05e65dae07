"""Randomness for synthetic scenes that depends on a seed and a place, never on what was drawn before.

Three kinds: hashed numbers keyed by indices, smooth noise on a lattice of hashed numbers (no period), and periodic
tiles of fine texture and of trees, made once a scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

PERIOD = 1024
"""Side of the periodic tiles, pixels."""

Float = NDArray[np.float32]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def uniform(seed: int, stream: int, *indices: ArrayLike) -> NDArray[np.float64]:
    """Numbers in [0, 1), one for each tuple of integer indices (broadcast against each other; negative is fine).

    The finaliser of splitmix64 (Steele, Lea, Flood 2014) chained over seed, stream and indices: equal keys give equal
    numbers on any machine and in any order of asking.
    """
    with np.errstate(over="ignore"):
        state = _mix(np.asarray([seed], dtype=np.uint64) * _GOLDEN + np.uint64(stream))
        for index in np.broadcast_arrays(*indices):
            state = _mix(state ^ (np.asarray(index, dtype=np.int64).astype(np.uint64) * _GOLDEN + _MIX_2))
    shape = np.broadcast_shapes(*(np.shape(index) for index in indices))
    return np.asarray((state >> np.uint64(11)) * 2.0**-53, dtype=np.float64).reshape(shape)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return np.asarray(state ^ (state >> np.uint64(31)))


@dataclass(frozen=True, kw_only=True)
class LatticeNoise:
    """Smooth noise in [−1, 1], about ±0.5 in practice: a cubic B-spline over hashed values every `spacing` pixels."""

    seed: int
    stream: int
    spacing: float

    def patch(self, *, row: int, col: int, size: int) -> Float:
        """(size, size): the noise at pixels `row` … and `col` … ."""
        rows, first_row = self._weights(row, size)
        cols, first_col = self._weights(col, size)
        i = first_row + np.arange(rows.shape[1])
        j = first_col + np.arange(cols.shape[1])
        lattice = (2 * uniform(self.seed, self.stream, i[:, None], j[None, :]) - 1).astype(np.float32)
        return np.asarray(rows @ lattice @ cols.T, dtype=np.float32)

    def at(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,): the noise at single points, in pixels."""
        offsets = np.arange(4)
        y, x = rows / self.spacing, cols / self.spacing
        i, j = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
        weights = _spline(y - i)[:, :, None] * _spline(x - j)[:, None, :]
        values = uniform(
            self.seed, self.stream, (i[:, None] - 1 + offsets)[:, :, None], (j[:, None] - 1 + offsets)[:, None]
        )
        return np.asarray((weights * (2 * values - 1)).sum(axis=(1, 2)))

    def _weights(self, start: int, size: int) -> tuple[Float, int]:
        position = (start + np.arange(size)) / self.spacing
        cell = np.floor(position).astype(np.int64)
        first = int(cell[0]) - 1
        weights = np.zeros((size, int(cell[-1]) - first + 3), dtype=np.float32)
        np.put_along_axis(weights, (cell - 1 - first)[:, None] + np.arange(4), _spline(position - cell), axis=1)
        return weights, first


def _spline(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1) / 6


class Tile:
    """A periodic image, read anywhere as a view without a copy."""

    def __init__(self, image: Float, *, largest: int) -> None:
        self._image = np.pad(image, ((0, largest), (0, largest)), mode="wrap")
        self._largest = largest

    def view(self, *, row: int, col: int, size: int) -> Float:
        """(size, size) from pixel (`row`, `col`) of the endless plane; `size` is at most `largest`."""
        assert size <= self._largest
        row, col = row % PERIOD, col % PERIOD
        return self._image[row : row + size, col : col + size]


def texture(seed: int, stream: int, *, roughness: float, coarsest: float) -> Float:
    """(PERIOD, PERIOD), mean 0, standard deviation 1: noise whose amplitude falls with frequency.

    Args:
        roughness: exponent of that fall: 0 = white, 1 = cloudy, 2 = smooth hills.
        coarsest: wavelength above which amplitude no longer grows, pixels.
    """
    white = np.random.default_rng([seed, stream]).standard_normal((PERIOD, PERIOD))
    fy, fx = np.fft.fftfreq(PERIOD)[:, None], np.fft.rfftfreq(PERIOD)[None, :]
    amplitude = np.maximum(np.hypot(fy, fx), 1 / coarsest) ** -roughness
    image = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(PERIOD, PERIOD))
    return np.asarray((image - image.mean()) / image.std(), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Sun:
    """Where the light comes from: azimuth clockwise from north and elevation above the horizon, degrees."""

    azimuth: float
    elevation: float

    @property
    def toward(self) -> tuple[float, float]:
        """Unit vector toward the sun on the ground: columns (east), rows (south)."""
        angle = math.radians(self.azimuth)
        return math.sin(angle), -math.cos(angle)

    @property
    def reach(self) -> float:
        """Length of the shadow of something of height 1."""
        return 1 / math.tan(math.radians(self.elevation))


@dataclass(frozen=True, kw_only=True)
class TreeTile:
    """Trees as periodic tiles. A tree stands wherever the wanted density exceeds its rank, so density thins them out.

    Attributes:
        rank: rank of the tree whose crown covers the pixel, in [0, 1); 2 where none does.
        hue: number of that tree's colour, 0 … `HUES` − 1.
        shade: brightness of the crown, about 1, one tile a date.
        shadow: lowest rank among the trees whose shadow falls on the pixel, 2 where none does; one tile a date.
    """

    HUES = 6

    rank: Tile
    hue: Tile
    shade: tuple[Tile, ...]
    shadow: tuple[Tile, ...]


def plant(seed: int, stream: int, suns: tuple[Sun, ...], *, largest: int) -> TreeTile:
    """A tile of some six thousand trees, 5 to 12 px in radius, lit by each of `suns`."""
    random = np.random.default_rng([seed, stream])
    count = 6500
    rank = np.full((PERIOD, PERIOD), 2.0, dtype=np.float32)
    hue = np.zeros((PERIOD, PERIOD), dtype=np.float32)
    height = np.zeros((PERIOD, PERIOD), dtype=np.float32)
    ranks = np.arange(count)[::-1] / count
    centres = random.uniform(0, PERIOD, (count, 2))
    radii = random.uniform(4.5, 11, count) * random.uniform(0.7, 1.1, count)
    hues = random.integers(0, TreeTile.HUES, count)
    # Low ranks are planted last, on top: those are the trees that stand even where few do.
    for r, (cy, cx), radius, colour in zip(ranks, centres, radii, hues, strict=True):
        reach = math.ceil(radius) + 1
        ys, xs = math.floor(cy) + np.arange(-reach, reach + 1), math.floor(cx) + np.arange(-reach, reach + 1)
        lumps = 1 + 0.18 * np.sin(3 * np.arctan2(ys[:, None] - cy, xs[None, :] - cx) + 7 * r * count)
        square = ((ys[:, None] - cy) ** 2 + (xs[None, :] - cx) ** 2) / (radius * lumps) ** 2
        crown = square < 1
        place = np.ix_(ys % PERIOD, xs % PERIOD)
        rank[place] = np.where(crown, r, rank[place])
        hue[place] = np.where(crown, colour, hue[place])
        height[place] = np.where(crown, radius * (0.9 + 0.9 * np.sqrt(np.clip(1 - square, 0, 1))), height[place])
    rough = height + 0.8 * texture(seed, stream + 1, roughness=0.4, coarsest=8)
    shades, shadows = [], []
    for sun in suns:
        east, south = sun.toward
        step_y, step_x = round(1.6 * south), round(1.6 * east)
        slope = np.roll(rough, (step_y, step_x), (0, 1)) - np.roll(rough, (-step_y, -step_x), (0, 1))
        shades.append(np.clip(1 + 0.07 * slope, 0.5, 1.5).astype(np.float32))
        cast = np.full_like(rank, 2.0)
        for t in np.arange(1, 1.8 * radii.max() * sun.reach, 1.0):
            shift = (-round(t * south), -round(t * east))
            high = np.roll(height, shift, (0, 1)) > t / sun.reach
            np.minimum(cast, np.roll(rank, shift, (0, 1)), out=cast, where=high)
        shadows.append(cast)
    return TreeTile(
        rank=Tile(rank, largest=largest),
        hue=Tile(hue, largest=largest),
        shade=tuple(Tile(shade, largest=largest) for shade in shades),
        shadow=tuple(Tile(shadow, largest=largest) for shadow in shadows),
    )

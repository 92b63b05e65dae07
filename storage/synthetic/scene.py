"""A synthetic bitemporal scene: any window of it, independently of every other.

The content of a pixel is a pure function of (seed, pseudo-changes, row, column). Cells of 256 × 256 px on one lattice
are the units of drawing, so a window cut anywhere is put together from the same cells as the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.synthetic.drawing import SIZE, Canvas, draw_buildings, draw_ground, draw_river, draw_roads
from storage.synthetic.landscape import Landscape
from storage.synthetic.noise import Float, LatticeNoise, Sun, Tile, plant, texture, uniform

CELL = SIZE - 2
"""Side of the unit of drawing, pixels: a canvas without the margin that the optics blur into it. Windows aligned to
cells waste nothing."""

_BLUR = 0.3  # variance of the optics' point spread, px²: the least that a shift of half a pixel needs is 0.25
_DRYING = (46.0, 10.0, -14.0)  # what a season of 1 adds to living plants
_HAZE = (198.0, 204.0, 212.0)
_SHADOW = (0.44, 0.48, 0.56)  # what is left of the light in shadow, where the blue sky still shines
_MORNING = Sun(azimuth=152.0, elevation=50.0)
_AFTERNOON = Sun(azimuth=214.0, elevation=38.0)


@dataclass(frozen=True, kw_only=True)
class PseudoChange:
    """What differs between the dates though nothing on the ground has changed.

    Attributes:
        season: how far plants turn from green to dry, 0 = not at all, 1 = strongly; varies over the scene.
        haze: largest share of the light that haze over the later date adds, 0 … 0.6.
        before, after: the sun of each date; shadows and shading follow it.
        shift_x, shift_y: misregistration of the later date, −0.7 … 0.7 px, to the right and downwards.
        gain, offset: the later date's sensor, for red, green, blue; offset in grey values.
        noise: standard deviation of each sensor's noise, grey values.
    """

    season: float = 0.6
    haze: float = 0.22
    before: Sun = _MORNING
    after: Sun = _AFTERNOON
    shift_x: float = 0.5
    shift_y: float = -0.35
    gain: tuple[float, float, float] = (1.06, 1.02, 0.94)
    offset: tuple[float, float, float] = (3.0, 4.0, 7.0)
    noise: float = 2.5

    def __post_init__(self) -> None:
        def within(name: str, value: float, low: float, high: float) -> None:
            if not low <= value <= high:
                raise ValueError(f"pseudo-change {name} = {value} lies outside {low} … {high}")

        within("season", self.season, 0, 1)
        within("haze", self.haze, 0, 0.6)
        within("shift_x", self.shift_x, -0.7, 0.7)
        within("shift_y", self.shift_y, -0.7, 0.7)
        within("noise", self.noise, 0, 20)
        for sun in (self.before, self.after):
            within("sun elevation", sun.elevation, 25, 80)
        if len(self.gain) != 3 or len(self.offset) != 3:
            raise ValueError(f"gain and offset are for red, green, blue, not {self.gain} and {self.offset}")
        for gain, offset in zip(self.gain, self.offset, strict=True):
            within("gain", gain, 0.5, 2)
            within("offset", offset, -60, 60)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window of a scene.

    Attributes:
        before, after: (3, h, w) uint8, red, green, blue, 1 … 255 (0 is left free to mean nodata).
        change: (h, w) uint8, 1 = changed, 0 = not.
    """

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    change: NDArray[np.uint8]


class Scene:
    """The landscape of one seed under one set of pseudo-changes: an endless plane, for pixels of 0.5 m."""

    def __init__(self, *, seed: int = 0, pseudo: PseudoChange | None = None) -> None:
        if seed < 0:
            raise ValueError(f"a seed is 0 or more, not {seed}")
        self.seed = seed
        self.pseudo = pseudo = pseudo or PseudoChange()
        self._landscape = Landscape(seed)
        self._cloudy = Tile(0.05 * texture(seed, 40, roughness=1.3, coarsest=160), largest=SIZE)
        self._grainy = Tile(0.04 * texture(seed, 41, roughness=0.5, coarsest=12), largest=SIZE)
        self._white = Tile(pseudo.noise * texture(seed, 42, roughness=0, coarsest=2), largest=SIZE)
        self._trees = plant(seed, 43, (pseudo.before, pseudo.after), largest=SIZE)
        self._hazy = LatticeNoise(seed=seed, stream=51, spacing=900)
        self._seasonal = LatticeNoise(seed=seed, stream=52, spacing=700)
        self._moist = LatticeNoise(seed=seed, stream=53, spacing=120)
        self._sparse = LatticeNoise(seed=seed, stream=54, spacing=60)

    def pair(self, rows: slice, cols: slice) -> Window:
        """Both dates and the truth of a window; row 0, column 0 is the mosaics' upper-left pixel.

        Raises:
            ValueError: an empty window, or one with a step or without a start or an end.
        """
        for name, span in (("rows", rows), ("cols", cols)):
            if span.start is None or span.stop is None or span.step not in (None, 1) or span.stop <= span.start:
                raise ValueError(f"{name} must be a slice of one pixel or more with a start and an end, not {span}")
        images = np.empty((6, rows.stop - rows.start, cols.stop - cols.start), dtype=np.uint8)
        change = np.empty(images.shape[1:], dtype=np.uint8)
        for i in range(rows.start // CELL, -(-rows.stop // CELL)):
            to_rows, from_rows = _overlap(rows, i)
            for j in range(cols.start // CELL, -(-cols.stop // CELL)):
                to_cols, from_cols = _overlap(cols, j)
                cell_images, cell_change = self._cell(i, j)
                images[:, to_rows, to_cols] = cell_images[:, from_rows, from_cols]
                change[to_rows, to_cols] = cell_change[from_rows, from_cols]
        return Window(before=images[:3], after=images[3:], change=change)

    def _cell(self, i: int, j: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        row, col = i * CELL - 1, j * CELL - 1
        pseudo, landscape = self.pseudo, self._landscape
        u, v = landscape.to_map(row=row, col=col, size=SIZE)
        reach = 90  # beyond the cell: as far as a building and its shadow get
        lands = landscape.lands(
            u=(float(u.min()) - reach, float(u.max()) + reach), v=(float(v.min()) - reach, float(v.max()) + reach)
        )
        canvas = Canvas(row=row, col=col, u=u, v=v)
        for land in lands:
            draw_ground(canvas, land)
        draw_river(canvas, landscape.river(row=row, col=col, size=SIZE))
        for land in lands:
            draw_roads(canvas, land)
        canvas.density *= 1 + 0.7 * self._sparse.patch(row=row, col=col, size=SIZE)
        canvas.draw_trees(self._trees)
        for date, sun in enumerate((pseudo.before, pseudo.after)):
            draw_buildings(canvas, lands, date=date, sun=sun, angle=landscape.angle)

        texture_ = 1 + self._cloudy.view(row=row, col=col, size=SIZE) + self._grainy.view(row=row, col=col, size=SIZE)
        texture_ += 0.16 * self._moist.patch(row=row, col=col, size=SIZE)
        images = np.empty((6, CELL, CELL), dtype=np.uint8)
        offsets = (uniform(self.seed, 60, i, j, np.arange(12)) * 1024).astype(int)
        for date in range(2):
            later = date == 1
            light = canvas.light[date] * texture_
            shadow = canvas.shadow[date]
            material = canvas.material[date].astype(np.intp)
            colours, green = canvas.palette(date)
            if later:
                season = np.float32(pseudo.season) * (0.75 + 0.9 * self._seasonal.patch(row=row, col=col, size=SIZE))
                living = np.take(green, material)
                living *= season
                haze = np.clip(0.5 + 0.9 * self._hazy.patch(row=row, col=col, size=SIZE), 0, 1)
                haze *= pseudo.haze
                light *= 1 + 0.06 * self._moist.patch(row=col, col=row + 7777, size=SIZE)
            taps_y = _taps(pseudo.shift_y if later else 0.0)
            taps_x = _taps(pseudo.shift_x if later else 0.0)
            for band in range(3):
                plane = np.take(colours[:, band], material)
                if later:
                    plane += _DRYING[band] * living
                plane *= light
                np.multiply(plane, _SHADOW[band], out=plane, where=shadow)
                if later:
                    plane += haze * (_HAZE[band] - plane)
                    plane *= pseudo.gain[band]
                plane = _filtered(plane, taps_y, taps_x)
                n = 2 * (3 * date + band)
                plane += self._white.view(row=offsets[n], col=offsets[n + 1], size=CELL)
                plane += (pseudo.offset[band] if later else 0) + 0.5
                images[3 * date + band] = np.clip(plane, 1, 255, out=plane)
        return images, canvas.changed[1:-1, 1:-1]


def _overlap(span: slice, cell: int) -> tuple[slice, slice]:
    start, stop = max(span.start, cell * CELL), min(span.stop, (cell + 1) * CELL)
    return slice(start - span.start, stop - span.start), slice(start - cell * CELL, stop - cell * CELL)


def _taps(shift: float) -> tuple[float, float, float]:
    """Three taps with mean −`shift` and the optics' variance: what moves an image by `shift` and blurs it a little."""
    return (_BLUR + shift**2 + shift) / 2, 1 - _BLUR - shift**2, (_BLUR + shift**2 - shift) / 2


def _filtered(plane: Float, taps_y: tuple[float, float, float], taps_x: tuple[float, float, float]) -> Float:
    down = taps_y[1] * plane[1:-1]
    down += taps_y[0] * plane[:-2]
    down += taps_y[2] * plane[2:]
    across = taps_x[1] * down[:, 1:-1]
    across += taps_x[0] * down[:, :-2]
    across += taps_x[2] * down[:, 2:]
    return np.asarray(across)

"""Pictures of a series as a person looks at it: every date, what changed between them, and when it was first seen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from storage.publish import publish
from storage.quicklook import MISSING, colours, display_bands, highest, stretch
from storage.store import NODATA, RunStore

LOOK_SIDE = 640
"""Pixels of the longer side of the picture of one date."""

_GAP, _CAPTION = 8, 24
_DARK = (30, 33, 38)


def step_of(store: RunStore) -> int:
    """Pixels of the grid along one pixel of a picture."""
    return max(1, ceil(max(store.height, store.width) / LOOK_SIDE))


def image_look(store: RunStore, keep: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Every n-th pixel of a date: (3, h, w) as the image has it, and (h, w) validity.

    Args:
        keep: file that takes it, so that a date that has been looked at is not read again.
    """
    if keep.exists():
        with np.load(keep) as known:
            return known["image"], known["valid"]
    step, chosen = step_of(store), display_bands(store.bands)
    height, width = ceil(store.height / step), ceil(store.width / step)
    image, valid = np.zeros((3, height, width), dtype=np.float32), np.zeros((height, width), dtype=bool)
    tile = max(store.block // step, 1)
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            here = (slice(y, min(y + tile, height)), slice(x, min(x + tile, width)))
            rows, cols = _pixels(here[0], step, store.height), _pixels(here[1], step, store.width)
            pixels, known_pixels = store.read_images(0, rows=rows, cols=cols)
            image[(slice(None), *here)] = pixels[chosen][:, ::step, ::step]
            valid[here] = known_pixels[::step, ::step]
    with publish(keep) as draft, draft.open("wb") as file:
        np.savez_compressed(file, image=image, valid=valid)
    return image, valid


def probability_look(store: RunStore) -> NDArray[np.uint8]:
    """(h, w) uint8: the highest of the probabilities that a pixel stands for; 255 where none is known."""
    step = step_of(store)
    rows = []
    for y in range(0, store.height, store.block // step * step or step):
        span = slice(y, min(y + (store.block // step * step or step), store.height))
        rows.append(highest(store.read_probability(rows=span, cols=slice(0, store.width)), step))
    return np.concatenate(rows)


def first_look(probabilities: Sequence[NDArray[np.uint8]], level: int) -> NDArray[np.int16]:
    """(h, w): number of the first pair that shows a change; −1 = none does, −2 = none is known."""
    first = np.full(probabilities[0].shape, -2, dtype=np.int16)
    for number, probability in enumerate(probabilities):
        known = probability != NODATA
        first[known & (first == -2)] = -1
        first[known & (probability >= level) & (first == -1)] = number
    return first


def dates_picture(
    images: Sequence[NDArray[np.float32]], valid: Sequence[NDArray[np.bool_]], days: Sequence[date]
) -> bytes:
    """PNG: all dates side by side, stretched together, so that brightness can be compared."""
    pictures = stretch(np.stack(images), np.stack(valid))
    return _sheet([(picture, f"{day}") for picture, day in zip(pictures, days, strict=True)])


def changes_picture(probabilities: Sequence[NDArray[np.uint8]], pairs: Sequence[tuple[date, date]]) -> bytes:
    """PNG: the change probability of every pair side by side; black = 0, light yellow = 1, light grey = nodata."""
    return _sheet(
        [(colours(stored), f"{start} to {end}") for stored, (start, end) in zip(probabilities, pairs, strict=True)]
    )


def first_picture(first: NDArray[np.int16], pairs: Sequence[tuple[date, date]]) -> bytes:
    """PNG: the pair in which each pixel's change is first seen, by colour, with its legend."""
    scale = _colours_of(len(pairs))
    picture = np.full((*first.shape, 3), _DARK, dtype=np.uint8)
    picture[first == -2] = MISSING
    for number, colour in enumerate(scale):
        picture[first == number] = colour
    font = ImageFont.load_default(size=14)
    height, width = first.shape
    legend = Image.new("RGB", (260, max(height, 20 * (len(pairs) + 2))), "white")
    draw = ImageDraw.Draw(legend)
    entries = [*zip(scale, (f"{start} to {end}" for start, end in pairs), strict=True)]
    for line, (colour, text) in enumerate([*entries, (_DARK, "no change seen"), (MISSING, "nodata")]):
        draw.rectangle((8, 20 * line + 3, 24, 20 * line + 17), fill=tuple(colour), outline=(120, 120, 120))
        draw.text((32, 20 * line + 2), text, fill="black", font=font)
    canvas = Image.new("RGB", (width + legend.width, max(height, legend.height)), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    canvas.paste(legend, (width, 0))
    return _png(canvas)


def area_chart(pairs: Sequence[tuple[date, date]], hectares: Sequence[float]) -> bytes:
    """PNG: changed area of each pair, a bar as wide as the time between its dates."""
    figure = Figure(figsize=(9.2, 3.2), layout="constrained", dpi=110)
    axis = figure.subplots()
    for (start, end), area, colour in zip(pairs, hectares, _colours_of(len(pairs)), strict=True):
        left, right = (float(date2num(day)) for day in (start, end))
        axis.bar(
            left, area, width=right - left, align="edge", color=np.array(colour) / 255, edgecolor="#444444", alpha=0.85
        )
    locator = AutoDateLocator()
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.set(ylabel="changed area, ha", ylim=(0, None))
    axis.grid(alpha=0.3, axis="y")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _colours_of(count: int) -> list[tuple[int, int, int]]:
    """From early to late along a perceptually ordered scale that colour-blind readers order in the same way."""
    found = colormaps["viridis"](np.linspace(0.15, 1.0, count))[:, :3] * 255
    return [(int(r), int(g), int(b)) for r, g, b in found]


def _pixels(span: slice, step: int, length: int) -> slice:
    return slice(span.start * step, min(span.stop * step, length))


def _sheet(pictures: Sequence[tuple[NDArray[np.uint8], str]]) -> bytes:
    height, width = pictures[0][0].shape[:2]
    columns = min(len(pictures), max(1, round(1600 / width)))
    rows = ceil(len(pictures) / columns)
    canvas = Image.new("RGB", (columns * (width + _GAP), rows * (height + _CAPTION + _GAP)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    for number, (picture, caption) in enumerate(pictures):
        left, top = number % columns * (width + _GAP), number // columns * (height + _CAPTION + _GAP)
        draw.text((left + 2, top + 2), caption, fill="black", font=font)
        canvas.paste(Image.fromarray(picture), (left, top + _CAPTION))
    return _png(canvas)


def _png(canvas: Any) -> bytes:
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()

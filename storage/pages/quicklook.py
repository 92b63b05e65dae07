"""Small pictures of a run: before, after and change probability, as a person looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from storage.pages.colours import _SCALE, MISSING, colours, display_bands, highest, stretch
from storage.pages.pictures import LINE, edges
from storage.places.bucket import Location
from storage.places.publish import publish
from storage.products.reader import SeriesReader
from tiling.conventions import LEVELS, NODATA, changed_level

LONG_SIDE = 1024
"""Pixels of the longer side of a quicklook."""


@dataclass(frozen=True, kw_only=True)
class Quicklooks:
    """Pictures of two dates, all of one size: (h, w, 3) uint8, missing pixels light grey.

    Attributes:
        probability: coloured by :func:`colours`.
        changed: (h, w), True where the probability reaches the threshold.
    """

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    probability: NDArray[np.uint8]
    changed: NDArray[np.bool_]


def make_quicklooks(reader: SeriesReader, *, threshold: float) -> Quicklooks:
    """Decimate a run block by block to at most :data:`LONG_SIDE` pixels; the same stretch for both dates.

    The probability of a quicklook pixel is the highest one it stands for, so that small changes stay visible.
    """
    step = max(1, -(-max(reader.height, reader.width) // LONG_SIDE))
    height, width = -(-reader.height // step), -(-reader.width // step)
    chosen = display_bands(reader.bands)
    images = np.zeros((2, len(chosen), height, width), dtype=np.float32)
    valid = np.zeros((2, height, width), dtype=bool)
    probability = np.full((height, width), NODATA, dtype=np.uint8)
    # whole quicklook pixels at a time, about as large as a block
    tile = max(reader.block // step, 1)
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            part = (slice(y, min(y + tile, height)), slice(x, min(x + tile, width)))
            rows, cols = (
                slice(span.start * step, min(span.stop * step, length))
                for span, length in zip(part, (reader.height, reader.width), strict=True)
            )
            pixels, is_valid = reader.read_series(rows=rows, cols=cols)
            images[(slice(None), slice(None), *part)] = pixels[:, chosen, ::step, ::step]
            valid[(slice(None), *part)] = is_valid[:, ::step, ::step]
            stored = reader.read_probability(rows=rows, cols=cols)
            probability[part] = highest(stored, step)
    stretched = stretch(images, valid)
    return Quicklooks(
        before=stretched[0],
        after=stretched[1],
        probability=colours(probability),
        changed=(probability != NODATA) & (probability >= changed_level(threshold)),
    )


def write_quicklook(path: Location, looks: Quicklooks, *, captions: Sequence[str]) -> None:
    """One PNG: before, after and probability side by side, with captions and the scale of the probability."""
    height, width = looks.before.shape[:2]
    gap, bar = 12, 34
    font = ImageFont.load_default(size=15)
    canvas = Image.new("RGB", (3 * width + 4 * gap, height + 2 * gap + 2 * bar), "white")
    draw = ImageDraw.Draw(canvas)
    pictures = (looks.before, _with_outline(looks.after, looks.changed), looks.probability)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = gap + number * (width + gap)
        draw.text((left, gap), _fitting(draw, caption, width, font), fill="black", font=font)
        canvas.paste(Image.fromarray(picture), (left, gap + bar - 8))
    _draw_scale(canvas, left=3 * gap + 2 * width, top=height + gap + bar, width=width, font=font)
    with publish(path) as draft:
        canvas.save(draft, format="PNG", optimize=True)


def _with_outline(picture: NDArray[np.uint8], changed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    outlined = picture.copy()
    outlined[edges(changed)] = LINE
    return outlined


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int, font: Any) -> str:
    while text and draw.textlength(text, font=font) > width:
        text = text[:-2].rstrip("… ") + "…"
        if len(text) < 3:
            return ""
    return text


def _draw_scale(canvas: Image.Image, *, left: int, top: int, width: int, font: Any) -> None:
    draw = ImageDraw.Draw(canvas)
    length = min(width // 2, 220)
    ramp = np.repeat(_SCALE[np.linspace(0, LEVELS, length).astype(int)][None], 12, axis=0)
    canvas.paste(Image.fromarray(ramp), (left + 18, top + 2))
    draw.text((left, top - 2), "0", fill="black", font=font)
    draw.text((left + length + 24, top - 2), "1", fill="black", font=font)
    if width > length + 150:
        draw.rectangle((left + length + 56, top + 2, left + length + 70, top + 13), fill=MISSING, outline=(120,) * 3)
        draw.text((left + length + 76, top - 2), "nodata", fill="black", font=font)

"""The same samples as several methods see them, side by side, as in Figures 12 and 13 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from storage.pages.colours import display_bands, stretch
from storage.pages.contact_sheet import MEANINGS, judged, labelled
from storage.pages.pictures import png

_GAP, _LINE, _MARGIN = 6, 16, 10
_DATA = ("before", "after", "label")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One sample, and what each method called changed in it.

    Attributes:
        before, after: (C, s, s).
        valid: (2, s, s).
        label: (s, s), 1 = changed, 0 = unchanged, 255 = not known.
        called: (s, s) by each method, True = called changed.
        notes: a few words under the picture of each method.
        caption: what stands under the sample.
    """

    before: NDArray[Any]
    after: NDArray[Any]
    valid: NDArray[np.bool_]
    label: NDArray[np.uint8]
    called: Sequence[NDArray[np.bool_]]
    notes: Sequence[str]
    caption: str


def side_by_side(
    samples: Sequence[Seen], methods: Sequence[str], *, bands: Sequence[str], side: int = 132, columns: int = 6
) -> bytes:
    """PNG: a band of pictures for each sample, its dates and label first, then one a method, judged by the label.

    Args:
        methods: names, in the order of `Seen.called`.
        side: side of one picture, pixels; `columns`: pictures in one line.
    """
    titles = [*_DATA, *methods]
    lines = -(-len(titles) // columns)
    cell, step = side + _GAP, side + 2 * _LINE + _GAP
    block = lines * step + _LINE + _MARGIN
    wide = 2 * _MARGIN + min(len(titles), columns) * cell
    canvas = Image.new("RGB", (max(wide, 560), len(samples) * block + 2 * _LINE + _MARGIN), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    _legend(draw, font)
    for number, sample in enumerate(samples):
        top = 2 * _LINE + _MARGIN + number * block
        draw.text((_MARGIN, top), sample.caption, fill="black", font=font)
        pictures, notes = _pictures(sample, bands), ["", "", "", *sample.notes]
        for place, (title, picture, note) in enumerate(zip(titles, pictures, notes, strict=True)):
            left, upper = _MARGIN + place % columns * cell, top + _LINE + place // columns * step
            draw.text((left, upper + 2), title[: side // 6], fill="black", font=font)
            scaled = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(scaled, (left, upper + _LINE + 2))
            draw.text((left, upper + _LINE + side + 3), note, fill=(80, 80, 80), font=font)
    return png(canvas)


def _pictures(sample: Seen, bands: Sequence[str]) -> list[NDArray[np.uint8]]:
    chosen = display_bands(bands)
    both = stretch(np.stack([sample.before[chosen], sample.after[chosen]]).astype(np.float32), sample.valid)
    return [both[0], both[1], labelled(sample.label), *(judged(called, sample.label) for called in sample.called)]


def _legend(draw: ImageDraw.ImageDraw, font: Any) -> None:
    left = _MARGIN
    for meaning, colour in MEANINGS.items():
        draw.rectangle((left, 6, left + 12, 18), fill=colour, outline="black")
        draw.text((left + 17, 5), meaning, fill="black", font=font)
        left += 17 + int(draw.textlength(meaning, font=font)) + 18

"""Contact sheets: samples as a person looks at them, before, after, label and, if there is one, the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from storage.pages.colours import colours, display_bands, stretch
from storage.pages.pictures import png
from tiling.conventions import CHANGED, IGNORED, NODATA, changed_level, level_of

_CHANGED, _UNCHANGED, _UNKNOWN = (253, 231, 37), (40, 40, 48), (214, 214, 214)
_RIGHT, _FALSE, _MISSED = (253, 231, 37), (214, 96, 77), (67, 147, 195)
_GAP, _CAPTION = 6, 20

MEANINGS = {
    "changed, and called so": _RIGHT,
    "false alarm": _FALSE,
    "missed": _MISSED,
    "unchanged": _UNCHANGED,
    "not known": _UNKNOWN,
}
"""Colours of :func:`judged`, which colour-blind readers tell apart too."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One sample on a sheet.

    Attributes:
        before, after: (C, s, s).
        valid: (2, s, s).
        label: (s, s), 1 = changed, 0 = unchanged, 255 = not known.
        probability: (s, s) in [0, 1], or None.
        threshold: above which the probability means change.
        caption: under it.
    """

    before: NDArray[Any]
    after: NDArray[Any]
    valid: NDArray[np.bool_]
    label: NDArray[np.uint8]
    caption: str
    probability: NDArray[np.floating[Any]] | None = None
    threshold: float = 0.5


def contact_sheet(panels: Sequence[Panel], *, bands: Sequence[str], columns: int = 2, side: int = 160) -> bytes:
    """PNG: `columns` samples beside each other, each of three or, with a prediction, five pictures of `side` px.

    Labels: yellow = changed, dark = unchanged, grey = not known. The fifth picture judges the prediction: yellow =
    right, red = false alarm, blue = missed.
    """
    pictures = [_pictures(panel, bands) for panel in panels]
    wide = len(pictures[0]) if pictures else 3
    cell = wide * (side + _GAP) + 2 * _GAP
    rows = -(-len(panels) // columns)
    canvas = Image.new("RGB", (columns * cell, max(rows, 1) * (side + _CAPTION + _GAP)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    for number, (panel, row) in enumerate(zip(panels, pictures, strict=True)):
        left, top = number % columns * cell + _GAP, number // columns * (side + _CAPTION + _GAP)
        for position, picture in enumerate(row):
            scaled = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(scaled, (left + position * (side + _GAP), top + _GAP))
        draw.text((left, top + side + _GAP + 2), panel.caption[: wide * side // 6], fill="black", font=font)
    return png(canvas)


def _pictures(panel: Panel, bands: Sequence[str]) -> list[NDArray[np.uint8]]:
    chosen = display_bands(bands)
    both = stretch(np.stack([panel.before[chosen], panel.after[chosen]]).astype(np.float32), panel.valid)
    row = [both[0], both[1], labelled(panel.label)]
    if panel.probability is not None:
        stored = np.where(panel.label == IGNORED, NODATA, level_of(panel.probability)).astype(np.uint8)
        row += [colours(stored), judged(stored >= changed_level(panel.threshold), panel.label)]
    return row


def labelled(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A label (s, s) as a picture (s, s, 3)."""
    return _painted(label.shape, [(label == 0, _UNCHANGED), (label == 1, _CHANGED)])


def judged(called: NDArray[np.bool_], label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What was called changed (s, s), beside the label (s, s): a picture (s, s, 3) in :data:`MEANINGS`' colours."""
    changed, is_labelled = label == CHANGED, label != IGNORED
    return _painted(
        label.shape,
        [
            (is_labelled & ~called & ~changed, _UNCHANGED),
            (called & changed, _RIGHT),
            (is_labelled & called & ~changed, _FALSE),
            (~called & changed, _MISSED),
        ],
    )


def _painted(
    shape: tuple[int, ...], masks: Sequence[tuple[NDArray[np.bool_], tuple[int, int, int]]]
) -> NDArray[np.uint8]:
    picture = np.full((*shape, 3), _UNKNOWN, dtype=np.uint8)
    for mask, colour in masks:
        picture[mask] = colour
    return picture

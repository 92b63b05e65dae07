"""Small pictures of a run: before, after and change probability, as a person looks at them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from storage.pages.colours import _SCALE, MISSING, colours, display_bands, highest, stretch
from storage.pages.pictures import LINE, edges
from storage.places.bucket import Location
from storage.places.publish import publish
from storage.products.plates import PLATE, Plate, Plates
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


@dataclass(frozen=True, kw_only=True)
class LookPart:
    """What a quicklook needs of one plate.

    Attributes:
        images: (2, 3, h, w) of the dates' bands in the colours that they are shown in, in their own type: every
            `step`-th pixel of the grid that lies in the plate.
        valid: (2, h, w), True = the date has data there.
        probability: (h', w') uint8, highest of every step × step pixels of the grid's lattice that the plate has a
            part in; 255 = none is known.
    """

    images: NDArray[Any]
    valid: NDArray[np.bool_]
    probability: NDArray[np.uint8]

    def to_bytes(self) -> bytes:
        """As an npz file."""
        file = io.BytesIO()
        np.savez(file, images=self.images, valid=self.valid, probability=self.probability)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> LookPart:
        """What :meth:`to_bytes` made.

        Raises:
            ValueError: anything else.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in ("images", "valid", "probability")})
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"no part of a quicklook: {error}") from error


def step_of(height: int, width: int) -> int:
    """Pixels of the grid that a pixel of its quicklook stands for, along each axis."""
    return max(1, -(-max(height, width) // LONG_SIDE))


def look_at(reader: SeriesReader, plate: Plate, probability: NDArray[np.uint8]) -> LookPart:
    """The part of a plate; `probability`: (h, w) uint8, its pixels as they are stored.

    Raises:
        IntegrityError: storage has lost imagery.
    """
    step = step_of(reader.height, reader.width)
    pixels, valid = reader.read_series(rows=plate.rows, cols=plate.cols)
    first = [-span.start % step for span in (plate.rows, plate.cols)]
    seen = (..., slice(first[0], None, step), slice(first[1], None, step))
    # the lattice of looks does not follow that of plates: up to the next lattice line nothing is known
    before = [(span.start % step, 0) for span in (plate.rows, plate.cols)]
    return LookPart(
        images=pixels[:, display_bands(reader.bands)][seen],
        valid=valid[seen],
        probability=highest(np.pad(probability, before, constant_values=NODATA), step),
    )


def join_looks(parts: Iterable[tuple[Plate, LookPart]], *, height: int, width: int, threshold: float) -> Quicklooks:
    """Pictures of at most :data:`LONG_SIDE` pixels from the parts of all plates; one stretch for both dates.

    The probability of a quicklook pixel is the highest one it stands for, so that small changes stay visible.
    """
    step = step_of(height, width)
    shape = -(-height // step), -(-width // step)
    images = np.zeros((2, 3, *shape), dtype=np.float32)
    valid = np.zeros((2, *shape), dtype=bool)
    ranked = np.zeros(shape, dtype=np.uint8)  # one more than the probability; 0 = not known
    for plate, part in parts:
        seen = [-(-span.start // step) for span in (plate.rows, plate.cols)]
        where = tuple(slice(start, start + n) for start, n in zip(seen, part.valid.shape[1:], strict=True))
        images[(slice(None), slice(None), *where)] = part.images
        valid[(slice(None), *where)] = part.valid
        cells = [span.start // step for span in (plate.rows, plate.cols)]
        of_plate = ranked[tuple(slice(c, c + n) for c, n in zip(cells, part.probability.shape, strict=True))]
        np.maximum(of_plate, part.probability + np.uint8(1), out=of_plate)
    probability = ranked - np.uint8(1)
    stretched = stretch(images, valid)
    return Quicklooks(
        before=stretched[0],
        after=stretched[1],
        probability=colours(probability),
        changed=(probability != NODATA) & (probability >= changed_level(threshold)),
    )


def make_quicklooks(reader: SeriesReader, *, threshold: float, plate: int = PLATE) -> Quicklooks:
    """The same, plate by plate in this process."""
    plates = Plates(height=reader.height, width=reader.width, size=plate)
    parts = ((one, look_at(reader, one, reader.read_probability(rows=one.rows, cols=one.cols))) for one in plates)
    return join_looks(parts, height=reader.height, width=reader.width, threshold=threshold)


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
        canvas.save(draft, format="PNG", compress_level=4)


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

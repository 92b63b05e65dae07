"""Pictures as files' bytes and as addresses that hold them, and the lines around what changed."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Colour = tuple[int, int, int]

LINE: Colour = (255, 224, 0)
"""Colour of outlines."""

_HALO: Colour = (20, 20, 20)


def png(picture: Image.Image | Figure) -> bytes:
    """A picture or a chart as a PNG file."""
    buffer = io.BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(buffer, format="PNG", optimize=True)
    else:
        picture.savefig(buffer, format="png")
    return buffer.getvalue()


def data_uri(picture: bytes) -> str:
    """The address of a picture that is in the page itself; `picture`: a PNG or JPEG file."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()


def photograph(pixels: NDArray[np.uint8]) -> str:
    """(h, w, 3) as the address of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=87)
    return data_uri(buffer.getvalue())


def see_through(numbers: NDArray[Any], palette: Sequence[Colour]) -> str:
    """(h, w) numbers as the address of a PNG: 0 is see-through, n the n-th colour, of 255 at most."""
    picture = Image.fromarray(np.minimum(numbers, 255).astype(np.uint8), mode="P")
    picture.putpalette([0, 0, 0, *(part for colour in palette[:255] for part in colour)])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", transparency=0)
    return data_uri(buffer.getvalue())


def edges(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(h, w): the changed pixels beside one that is not; the picture's own edge is none."""
    padded = np.pad(changed, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return changed & ~inside


def outlines(changed: NDArray[np.bool_]) -> str:
    """The edges of (h, w), light with a dark halo, so that they are seen on any ground; see-through elsewhere."""
    line = edges(changed)
    padded = np.pad(line, 1)
    near = np.logical_or.reduce(
        [padded[y : y + line.shape[0], x : x + line.shape[1]] for y in range(3) for x in range(3)]
    )
    return see_through(np.where(line, 2, near), [_HALO, LINE])

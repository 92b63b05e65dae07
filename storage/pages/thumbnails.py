"""What a person looks at of a series: small pictures of each date and pair, made once and kept."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.pages.colours import display_bands, highest
from storage.places.publish import publish
from storage.stores.run_store import RunStore

LOOK_SIDE = 960
"""Pixels of the longer side of a picture."""


def step_of(store: RunStore) -> int:
    """Pixels of the grid along one pixel of a picture."""
    return max(1, ceil(max(store.height, store.width) / LOOK_SIDE))


def image_look(store: RunStore, keep: Path) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Every n-th pixel of a date: (3, h, w) as the image has it, and (h, w) validity.

    Args:
        keep: file that takes it, so that a date that has been looked at is not read again.
    """
    step, chosen = step_of(store), display_bands(store.bands)
    height, width = ceil(store.height / step), ceil(store.width / step)
    if keep.exists():
        with np.load(keep) as look:
            if look["valid"].shape == (height, width):
                return look["image"], look["valid"]
    image, valid = np.zeros((3, height, width), dtype=store.dtype), np.zeros((height, width), dtype=bool)
    tile = max(store.block // step, 1)
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            part = (slice(y, min(y + tile, height)), slice(x, min(x + tile, width)))
            rows, cols = _pixels(part[0], step, store.height), _pixels(part[1], step, store.width)
            pixels, known_pixels = store.read_images(0, rows=rows, cols=cols)
            image[(slice(None), *part)] = pixels[chosen][:, ::step, ::step]
            valid[part] = known_pixels[::step, ::step]
    with publish(keep) as draft, draft.open("wb") as file:
        np.savez_compressed(file, image=image, valid=valid)
    return image, valid


def probability_look(store: RunStore, keep: Path, *, digest: str) -> NDArray[np.uint8]:
    """(h, w) uint8: the highest of the probabilities that a pixel stands for; 255 where none is known.

    Args:
        keep: file that takes it; `digest`: of the pair's blocks: made of others, it is made anew.
    """
    step = step_of(store)
    made_of = f"{digest} every {step}"
    if keep.exists():
        with np.load(keep) as look:
            if str(look["made_of"]) == made_of:
                return np.asarray(look["probability"])
    tall = max(store.block // step, 1) * step
    rows = [
        highest(store.read_probability(rows=slice(y, min(y + tall, store.height)), cols=slice(0, store.width)), step)
        for y in range(0, store.height, tall)
    ]
    probability = np.concatenate(rows)
    with publish(keep) as draft, draft.open("wb") as file:
        np.savez_compressed(file, probability=probability, made_of=np.array(made_of))
    return probability


def _pixels(span: slice, step: int, length: int) -> slice:
    return slice(span.start * step, min(span.stop * step, length))

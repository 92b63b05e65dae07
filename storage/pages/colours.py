"""Colours of imagery and of probabilities in pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiling.conventions import LEVELS, NODATA

MISSING = (214, 214, 214)


# Anchors of a perceptually ordered scale, dark to light, that colour-blind readers order in the same way.
_ANCHORS = np.array(
    [(0, 0, 4), (45, 17, 96), (114, 31, 129), (182, 55, 121), (241, 96, 93), (254, 174, 118), (252, 253, 191)],
    dtype=float,
)


_SCALE: NDArray[np.uint8] = np.stack(
    [np.interp(np.linspace(0, 1, LEVELS + 1), np.linspace(0, 1, len(_ANCHORS)), _ANCHORS[:, c]) for c in range(3)],
    axis=1,
).astype(np.uint8)


def colours(probability: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stored probabilities (h, w), 255 = nodata, to (h, w, 3): black = 0, light yellow = 1, light grey = nodata."""
    return np.concatenate([_SCALE, np.array([MISSING], dtype=np.uint8)])[probability]


def display_bands(names: Sequence[str]) -> list[int]:
    """Red, green, blue by name; else the first three bands; one band as grey."""
    lowered = [name.lower() for name in names]
    if all(colour in lowered for colour in ("red", "green", "blue")):
        return [lowered.index(colour) for colour in ("red", "green", "blue")]
    return [0, 1, 2] if len(names) >= 3 else [0, 0, 0]


def highest(stored: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Highest valid value of each step × step pixels; nodata where none is valid."""
    ranked = np.where(stored == NODATA, 0, stored + np.uint8(1))  # nodata lowest
    padded = np.pad(ranked, ((0, -stored.shape[0] % step), (0, -stored.shape[1] % step)))
    tiles = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
    return (tiles.max(axis=(1, 3)) - np.uint8(1)).astype(np.uint8)  # 0 − 1 is nodata again


def stretch(images: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(T, 3, h, w) to (T, h, w, 3): 2nd to 98th percentile of all dates together, band by band."""
    result = np.full((len(images), *images.shape[2:], 3), MISSING, dtype=np.uint8)
    for band in range(3):
        values = images[:, band][valid]
        low, high = np.percentile(values, (2, 98)) if values.size else (0.0, 1.0)
        scaled = np.clip((images[:, band] - low) / max(high - low, 1e-6), 0, 1) * 255
        result[..., band] = np.where(valid, scaled, result[..., band]).astype(np.uint8)
    return result

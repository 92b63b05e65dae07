"""Labelled pictures in which bright squares appear: what is quick to prepare, and quick to learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

SIDE = 64
DATES = ("before", "after", "label")


def squares(random: np.random.Generator, height: int, width: int, count: int) -> tuple[Any, Any, Any]:
    """Two dates (h, w, 3) with `count` bright squares that appear, and their label (h, w) of 0 and 255."""
    first = random.integers(60, 110, (height, width, 3))
    label = np.zeros((height, width), dtype=np.uint8)
    for _ in range(count):
        y, x = random.integers(0, height - 26), random.integers(0, width - 26)
        label[y : y + 26, x : x + 26] = 255
    second = first + random.integers(-12, 12, 3) + 100 * (label[..., None] > 0)
    return first.astype(np.uint8), np.clip(second, 0, 255).astype(np.uint8), label


def write_pictures(
    folder: Path, splits: Mapping[str, int], *, seed: int, count: Mapping[str, int] | None = None
) -> None:
    """A folder as CDD and LEVIR have it, so many pictures a split; `count`: squares in each, 1 unless it says else."""
    random = np.random.default_rng(seed)
    for split, pictures in splits.items():
        for name in ("A", "B", "label"):
            (folder / split / name).mkdir(parents=True)
        for number in range(pictures):
            drawn = squares(random, SIDE, SIDE, (count or {}).get(split, 1))
            for name, pixels in zip(("A", "B", "label"), drawn, strict=True):
                Image.fromarray(pixels).save(folder / split / name / f"{number:02d}.png")


def write_mosaic(path: Path, pixels: Any) -> None:
    """A GeoTIFF of pixels (h, w) or (h, w, bands), one metre each."""
    planes = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    count, height, width = planes.shape
    place = {"crs": "EPSG:32631", "transform": Affine(1, 0, 5e5, 0, -1, 5e6)}
    shape = {"height": height, "width": width, "count": count, "dtype": planes.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write(planes)

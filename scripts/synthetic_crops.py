"""Scenes and random crops that the synthetic bundle is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dasnet.losses import IGNORED
from scripts.synthetic_scenes import any_pseudo_change
from storage.synthetic_scene import PseudoChange, Scene, Window

SIDE = 2048
"""Of every scene, pixels."""

CROP = 128
BATCH = 8

_SHARE_CUT = 0.15  # of the crops that have an edge of the data in them


def scene(seed: int, *, usual: bool) -> Window:
    """A whole scene, under the usual pseudo-changes or under any."""
    extent = slice(0, SIDE)
    return Scene(seed=seed, pseudo=PseudoChange() if usual else any_pseudo_change(seed)).pair(extent, extent)


@dataclass(frozen=True, kw_only=True)
class Crops:
    """A batch: images (B, 3, CROP, CROP) uint8; change (B, CROP, CROP) uint8, 1, 0 or 255 = nodata."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    change: NDArray[np.uint8]


def crops(scenes: list[Window], *, empty: NDArray[np.uint8], steps: int, seed: int) -> Iterator[Crops]:
    """Batches of random crops, half of them with a change, turned and mirrored, both dates alike.

    Args:
        empty: (3,) the grey values that normalisation takes to 0, as it does with nodata.
    """
    random = np.random.default_rng(seed)

    def one(wanted: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        for _ in range(40):
            chosen = scenes[random.integers(len(scenes))]
            y, x = random.integers(0, SIDE - CROP, 2)
            place = (slice(y, y + CROP), slice(x, x + CROP))
            change = chosen.change[place]
            if not wanted or 0.02 < change.mean() < 0.98:
                break
        images = np.concatenate([chosen.before[:, *place], chosen.after[:, *place]])
        if random.random() < _SHARE_CUT:
            change = _cut(images, change.copy(), empty, random)
        turns = int(random.integers(4))
        images, change = np.rot90(images, turns, (1, 2)), np.rot90(change, turns)
        if random.random() < 0.5:
            images, change = images[:, :, ::-1], change[:, ::-1]
        if random.random() < 0.5:
            images = np.concatenate([images[3:], images[:3]])
        return images, change

    for _ in range(steps):
        images, change = zip(*(one(n % 2 == 0) for n in range(BATCH)), strict=True)
        both = np.stack(images)
        yield Crops(before=both[:, :3], after=both[:, 3:], change=np.stack(change))


def _cut(
    images: NDArray[np.uint8], change: NDArray[np.uint8], empty: NDArray[np.uint8], random: np.random.Generator
) -> NDArray[np.uint8]:
    """Take the data of one date or of both from one side of a random line, in place; the change, 255 there."""
    angle, place = random.uniform(0, 2 * np.pi), random.uniform(0.1, 0.9)
    y, x = (np.indices(change.shape) / CROP - 0.5) * 1.4
    gone = np.sin(angle) * y + np.cos(angle) * x > place - 0.2
    for date in ((0,), (1,), (0, 1))[random.integers(3)]:
        images[3 * date : 3 * date + 3, gone] = empty[:, None]
    change[gone] = IGNORED
    return change

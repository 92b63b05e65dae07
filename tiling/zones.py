"""Where training samples are cut: zones that belong to one split each, and windows inside them. No I/O.

Neighbouring windows look alike, and overlapping ones share pixels. A score on windows whose neighbours were trained on
says little; so a split is made of zones, and a window never shows a pixel of another zone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from tiling.conventions import SPLITS
from tiling.grid import Box

SHARES = {"train": 8.0, "val": 1.0, "test": 1.0}
"""Shares of the pixels, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class Zone:
    """A part of a scene all of whose samples belong to `split`."""

    box: Box
    split: str

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r} is none of {', '.join(SPLITS)}")


@dataclass(frozen=True, kw_only=True)
class SampleWindow:
    """One sample: `window` is what is cut, `inside` the part of it that its zone has. The rest is nodata."""

    window: Box
    inside: Box
    split: str


def windows_of(zone: Zone, *, window: int, stride: int) -> Iterator[SampleWindow]:
    """Windows that cover a zone, row by row from its upper-left corner; the last ones may reach beyond it.

    Args:
        window: side, pixels.
        stride: pixels from one window to the next; equal to `window` = they do not overlap.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"a stride of {stride} px leaves gaps or stands still: 1 to the window's {window} px")
    box = zone.box
    for y in _starts(box.y0, box.y1, window, stride):
        for x in _starts(box.x0, box.x1, window, stride):
            yield SampleWindow(
                window=Box(y0=y, y1=y + window, x0=x, x1=x + window),
                inside=Box(y0=y, y1=min(y + window, box.y1), x0=x, x1=min(x + window, box.x1)),
                split=zone.split,
            )


def _starts(start: int, stop: int, window: int, stride: int) -> range:
    """Until the first window that reaches the end."""
    steps = max(ceil((stop - start - window) / stride), 0)
    return range(start, start + steps * stride + 1, stride)


def whole(height: int, width: int, split: str) -> list[Zone]:
    """All of a scene in one split."""
    return [Zone(box=Box(y0=0, y1=height, x0=0, x1=width), split=split)]


def columns(height: int, width: int, *, first: float, second: float) -> list[Zone]:
    """Three strips from left to right: train up to `first` of the width, val up to `second`, test the rest.

    Raises:
        ValueError: not 0 < first < second < 1, or a strip narrower than one pixel.
    """
    if not 0 < first < second < 1:
        raise ValueError(f"columns are split at two shares of the width, 0 < first < second < 1, not {first}, {second}")
    edges = [0, round(first * width), round(second * width), width]
    if not edges[0] < edges[1] < edges[2] < edges[3]:
        raise ValueError(f"{width} columns cannot be split at {first} and {second}: a strip would be empty")
    return [
        Zone(box=Box(y0=0, y1=height, x0=left, x1=right), split=split)
        for split, left, right in zip(SPLITS, edges[:-1], edges[1:], strict=True)
    ]


def cells(height: int, width: int, *, side: int, seed: int, shares: Mapping[str, float] = SHARES) -> list[Zone]:
    """Square cells, shuffled and dealt out by area, so that a split lies in many places but never beside itself alone.

    The same shape and seed give the same cells, so that several dates of one place are split alike.

    Args:
        side: side of a cell, pixels; several windows.
        shares: share of each split, in any positive unit.

    Raises:
        ValueError: fewer cells than splits with a share.
    """
    boxes = [
        Box(y0=y, y1=min(y + side, height), x0=x, x1=min(x + side, width))
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
    splits = dealt([box.area for box in boxes], seed=seed, shares=shares, what=f"cells of {side} px")
    return [Zone(box=box, split=split) for box, split in zip(boxes, splits, strict=True)]


def dealt(
    weights: Sequence[float], *, seed: int, shares: Mapping[str, float] = SHARES, what: str = "pictures"
) -> list[str]:
    """A split for each item, at random, so that the splits' weights come as near to `shares` as they can.

    In shuffled order an item goes to the split that is farthest below its share; the smallest splits are served first,
    so that each gets one.

    Raises:
        ValueError: fewer items than splits with a share.
    """
    positive = {split: share for split, share in shares.items() if share > 0}
    if len(weights) < len(positive):
        raise ValueError(f"{len(weights)} {what} cannot be split into {', '.join(positive)}: one each is needed")
    order = list(range(len(weights)))
    random.Random(seed).shuffle(order)
    total, parts = sum(weights), sum(positive.values())
    missing = {split: total * share / parts for split, share in positive.items()}
    result = [""] * len(weights)
    for position, item in enumerate(order):
        left_without = [split for split in positive if split not in result]
        if left_without and len(order) - position <= len(left_without):
            split = left_without[0]
        else:
            split = max(missing, key=lambda name: missing[name] / positive[name])
        result[item] = split
        missing[split] -= weights[item]
    return result

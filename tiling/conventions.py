"""What numbers and names in files stand for: all rooms agree on them, and none keeps a copy."""

from __future__ import annotations

from math import ceil
from typing import Any, Literal, get_args

DTYPES = ("uint8", "uint16", "float32")
"""Data types of images."""

QUANTISATION = 127.5
"""Number of int8 that stands for 1 in AlphaEarth's Satellite Embedding; -128 in all bands is no data there."""
QUANTISED_NODATA = -128

Values = Literal["stored", "physical", "quantised"]
"""Whether stored numbers are compared as they stand, as the scale and offset that files declare make them, or, of int8
that declares none, as :func:`dequantised` makes them."""

Split = Literal["train", "val", "test"]
SPLITS: tuple[str, ...] = get_args(Split)

UNCHANGED, CHANGED, IGNORED = 0, 1, 255
"""Values of a label; an ignored pixel is not known, or nodata in a date, and is no part of any loss or score."""

LEVELS = 254
"""Probability 1 as stored, in one byte."""
NODATA = 255
"""What is stored where there is no probability."""
PROBABILITY_SCALE = 1 / LEVELS
"""Probability of one stored level."""
PASSED_OVER = 0
"""Level of the valid pixels that a first pass gave to no network. Where there was a first pass, and there alone, level
0 is kept for them: what the network computed is stored as :data:`LOWEST_COMPUTED` or more."""
LOWEST_COMPUTED = 1

DISAGREEMENT_BINS = 256
DISAGREEMENT_SCALE = 510
"""Bin of a standard deviation of 1 between windows; values in [0, 1] deviate by 0.5 at most."""


def dequantised(values: Any) -> Any:
    """What stored numbers of AlphaEarth's Satellite Embedding stand for: sign(v) · (v / 127.5)², an array of floats.

    Source: Google Earth Engine, "AlphaEarth Foundations GCS data".
    """
    return values * abs(values) / QUANTISATION**2


def level_of(probability: Any) -> Any:
    """The level at which a probability is stored: an array or tensor in [0, 1] to whole numbers in [0, 254]."""
    return (probability * LEVELS).round()


def changed_level(threshold: float) -> int:
    """The smallest level (1 to 254) whose probability, level / 254, reaches `threshold`, in (0, 1).

    What is changed is decided on levels, everywhere: so a score, a polygon and a reader of the stored mosaic who
    compares it with the threshold all see the same pixels.
    """
    return max(ceil(threshold * LEVELS - 1e-9), 1)


def lowest_stored_as(level: int) -> float:
    """The smallest probability that is stored as this level, from 1 on. As a threshold it judges what is stored and
    what is not yet stored alike."""
    return (level - 0.5) / LEVELS


def lowest_changed(threshold: float) -> float:
    """The smallest probability that is stored as :func:`changed_level` or more."""
    return lowest_stored_as(changed_level(threshold))

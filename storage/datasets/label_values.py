"""Which pixels a label raster calls changed: {0, 1}, {0, 255}, the same as JPEG or as RGB, and nothing else.

Labels found in the wild come in all of these, and scripts that guess wrong train on nothing: the DASNet authors' own
`> 1` turns every label of {0, 1} into "unchanged".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from storage.errors import InputError

Coding = Literal["unchanged", "0/1", "0/255"]
"""How a label raster codes change; "unchanged" = all 0, which every coding has."""

_SHOWN = 8
_SOFT = 0.25
_STRAY = 0.002
_NEAR = 32


def histogram(values: NDArray[Any]) -> dict[float, int]:
    """Pixels by value."""
    distinct, counts = np.unique(values, return_counts=True)
    return {float(value): int(count) for value, count in zip(distinct, counts, strict=True)}


def coding_of(path: str, counts: Mapping[float, int]) -> Coding:
    """How a raster with these pixels by value codes change.

    JPEG softens a label: around its two values others appear, few and near. So {0, 1} may have some 2, and {0, 255} a
    slope between, as long as nearly all pixels are near one of the two.

    Args:
        path: for the message.

    Raises:
        InputError: three classes, a continuous range, or values that are no labels; with the values.
    """
    present = {value: count for value, count in counts.items() if count}
    if not present or set(present) == {0.0}:
        return "unchanged"
    total, highest = sum(present.values()), max(present)
    odd = [value for value in present if value != int(value) or not 0 <= value <= 255]
    if not odd and highest == 1:
        return "0/1"
    if not odd and highest <= 3 and sum(n for value, n in present.items() if value > 1) <= 0.01 * present.get(1.0, 0):
        return "0/1"
    if not odd and highest >= 255 - _NEAR:
        low = sum(count for value, count in present.items() if value <= _NEAR)
        high = sum(count for value, count in present.items() if value >= 255 - _NEAR)
        between = total - low - high
        smaller = min(low, high) if low and high else max(low, high)
        if between <= max(_SOFT * smaller, _STRAY * total):
            return "0/255"
    listed = ", ".join(
        f"{value:g} ({100 * present[value] / total:.3g} %)"
        for value in sorted(present, key=present.__getitem__)[::-1][:_SHOWN]
    )
    more = f" and {len(present) - _SHOWN} more values" if len(present) > _SHOWN else ""
    raise InputError(
        f"{path} is no label of change: a label has two values, 0 and 1 or 0 and 255 (softened by JPEG at most), this "
        f"one has {listed}{more}"
    )


def common_coding(codings: Mapping[str, Coding]) -> Literal["0/1", "0/255"]:
    """The one coding of all label rasters of a dataset, by path.

    Raises:
        InputError: two codings in one dataset, or not one changed pixel in all of it.
    """
    path_by_coding: dict[Coding, str] = {}
    for path, coding in codings.items():
        if coding != "unchanged":
            path_by_coding.setdefault(coding, path)
    if len(path_by_coding) > 1:
        raise InputError(
            "labels of one dataset are coded alike, but "
            + " and ".join(f"{p} has {c}" for c, p in sorted(path_by_coding.items()))
        )
    if not path_by_coding:
        raise InputError(
            f"not one changed pixel in {len(codings)} label files ({next(iter(codings), 'none')} …): "
            "there is nothing to learn and no weight for the class"
        )
    only = next(iter(path_by_coding))
    assert only != "unchanged"
    return only


def binarise(values: NDArray[Any], coding: Literal["0/1", "0/255"]) -> NDArray[np.uint8]:
    """1 where at or above half of the coding's range, else 0; any shape."""
    return (values >= (1 if coding == "0/1" else 128)).astype(np.uint8)


def one_band(path: str, image: NDArray[Any]) -> NDArray[Any]:
    """The label of a raster whose bands are copies of each other: (C, h, w) to (h, w).

    Raises:
        InputError: the bands differ by more than JPEG makes them: colours that mean classes.
    """
    if len(image) > 1:
        spread = image.max(axis=0).astype(np.float64) - image.min(axis=0)
        if (spread > _NEAR).mean() > _STRAY:
            y, x = np.unravel_index(int(spread.argmax()), spread.shape)
            raise InputError(
                f"{path} is coloured, pixel ({int(y)}, {int(x)}) is {tuple(image[:, y, x].tolist())}: a label has one "
                "band, or copies of one"
            )
    return image[0]

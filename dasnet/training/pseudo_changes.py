"""Pseudo-changes of a known strength: what differs between two dates without being a change, drawn onto a test split.

The operations are those of augmentation. A sample draws the same random numbers whatever the strength, so that a
stronger season is the same season, only more of it, and every method sees the same pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dasnet.training.augment import Sample
from dasnet.training.augmentation import Augmentation

STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "season": (0.0, 0.1, 0.2, 0.3, 0.4),
    "haze": (0.0, 0.2, 0.4, 0.6, 0.8),
    "shift": (0.0, 1.0, 2.0, 4.0, 8.0),
    "gain": (0.0, 0.1, 0.2, 0.3, 0.4),
}
"""What is tried, from nothing on; units as of :data:`AXES`."""

AXES: Mapping[str, str] = {
    "season": "largest change of a band's contrast",
    "haze": "largest share of veil",
    "shift": "largest shift, pixels",
    "gain": "largest change of brightness",
}

_FIELDS = {"season": "season", "haze": "haze", "shift": "shift", "gain": "brightness"}


def pseudo_changed(
    before: NDArray[Any],
    after: NDArray[Any],
    valid: NDArray[np.bool_],
    label: NDArray[np.uint8],
    *,
    operation: str,
    strength: float,
    seed: int,
    peak: float = 0.0,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]:
    """One sample, each of its dates by itself under another season, veil or light, or the second date shifted.

    Args:
        before, after: (C, s, s) uint8, uint16 or float32.
        valid: (2, s, s), True = valid in that date; label: (s, s), 1, 0 or 255 = not known.
        operation: one of :data:`STRENGTHS`; strength: the largest that can be drawn, 0 = nothing happens.
        seed: of the sample; peak: highest value, as of augmentation.

    Returns:
        The same four, of the same types; what the shift drew from outside is invalid and not known.
    """
    if not strength:
        return before, after, valid, label
    drawn: dict[str, Any] = {_FIELDS[operation]: strength}
    change = Augmentation(flips=False, peak=peak, **drawn)
    tensors = (torch.from_numpy(np.array(part)) for part in (before, after, valid, label))
    found = change(Sample(**dict(zip(("before", "after", "valid", "label"), tensors, strict=True))), seed=seed)
    dates = (_as_stored(found.before.numpy(), before.dtype), _as_stored(found.after.numpy(), after.dtype))
    return *dates, found.valid.numpy(), found.label.numpy()


def _as_stored(image: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    return image.round().astype(dtype) if np.issubdtype(dtype, np.integer) else image.astype(dtype)

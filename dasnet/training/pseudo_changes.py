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


Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]
"""One sample: before and after, (C, s, s) uint8, uint16 or float32; valid (2, s, s), True = valid in that date; label
(s, s), 1, 0 or 255 = not known."""


def pseudo_changed(sample: Arrays, *, operation: str, strength: float, seed: int, peak: float = 0.0) -> Arrays:
    """A sample, each of its dates by itself under another season, veil or light, or the second date shifted.

    Args:
        operation: one of :data:`STRENGTHS`; strength: the largest that can be drawn, 0 = nothing happens.
        seed: the sample's; peak: highest value, as augmentation has it.

    Returns:
        The same four, of the same types; what the shift drew from outside is invalid and not known.
    """
    if not strength:
        return sample
    drawn: dict[str, Any] = {_FIELDS[operation]: strength}
    change = Augmentation(flips=False, peak=peak, **drawn)
    tensors = (torch.from_numpy(np.array(part)) for part in sample)
    changed = change(Sample(**dict(zip(("before", "after", "valid", "label"), tensors, strict=True))), seed=seed)
    dates = (_as_stored(changed.before.numpy(), sample[0].dtype), _as_stored(changed.after.numpy(), sample[1].dtype))
    return *dates, changed.valid.numpy(), changed.label.numpy()


def _as_stored(image: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    return image.round().astype(dtype) if np.issubdtype(dtype, np.integer) else image.astype(dtype)

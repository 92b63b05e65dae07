"""Pairs of dates for the methods without training, and what each of them makes of a whole pair."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasnet.baselines.detector import Detector
from dasnet.baselines.methods import fit
from dasnet.baselines.statistics import Names
from dasnet.baselines.untrained import UntrainedMethod


def names(bands: int) -> Names:
    called = tuple(f"b{number}" for number in range(1, bands + 1))
    return Names(before="old.tif", after="new.tif", bands_before=called, bands_after=called)


def two_dates(
    bands: int = 3, *, height: int = 60, width: int = 72, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Bands that have much in common; the second date is another affine mixture of them with noise, and in a rectangle
    of 15 × 20 pixels something else. Returns before, after, and where that is."""
    random = np.random.default_rng(seed)
    ground = random.normal(size=(bands, height, width))
    before = np.einsum("ij,jyx->iyx", random.normal(size=(bands, bands)) + 2 * np.eye(bands), ground) * 20 + 100
    noise = random.normal(size=ground.shape) * np.linspace(1, 4, bands)[:, None, None]
    after = before * np.linspace(0.7, 1.4, bands)[:, None, None] + 30 + noise
    changed = np.zeros((height, width), dtype=bool)
    changed[20:35, 30:50] = True
    after[:, changed] += np.linspace(60, -90, bands)[:, None] + 20 * random.normal(size=(bands, changed.sum()))
    return before, after, changed


def detector_of(
    method: UntrainedMethod, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_] | None = None
) -> Detector:
    """Fitted to a whole pair at once."""
    there = np.ones(before.shape[1:], dtype=bool) if valid is None else valid
    return method.detector(fit(method, lambda: [(before, after, there)], names(len(before))))


def statistic_of(
    method: UntrainedMethod, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """(h, w) of a whole pair, fitted to itself."""
    there = np.ones(before.shape[1:], dtype=bool) if valid is None else valid
    return detector_of(method, before, after, there).statistic(before, after, there)

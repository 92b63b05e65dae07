"""How good a bundle is on labelled samples: every score from totals of pixels, and how sure one can be of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from dasnet.metrics import Confusion, ThresholdSweep
from dasnet.prediction.calibration import Calibration

_RELIABILITY_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Probability against observed share of change, in ten bins.

    Attributes:
        probability, observed: (10,) means, NaN where a bin is empty; `pixels`: (10,).
        error: expected calibration error: mean distance between the two, weighted by pixels.
    """

    probability: NDArray[np.float64]
    observed: NDArray[np.float64]
    pixels: NDArray[np.int64]
    error: float


def reliability(probability: NDArray[np.float64], sweep: ThresholdSweep) -> Reliability:
    """How reliable a probability is that is given for each bin of a sweep, (bins,)."""
    bins = np.minimum((probability * _RELIABILITY_BINS).astype(int), _RELIABILITY_BINS - 1)
    weights = (sweep.changed + sweep.unchanged).astype(np.float64)
    pixels = np.bincount(bins, weights=weights, minlength=_RELIABILITY_BINS)
    predicted = np.bincount(bins, weights=weights * probability, minlength=_RELIABILITY_BINS)
    changed = np.bincount(bins, weights=sweep.changed.astype(np.float64), minlength=_RELIABILITY_BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            probability=predicted / pixels,
            observed=changed / pixels,
            pixels=pixels.astype(np.int64),
            error=float(np.abs(predicted - changed).sum() / max(pixels.sum(), 1)),
        )


def calibrated(calibration: Calibration, sweep: ThresholdSweep) -> NDArray[np.float64]:
    """(bins,) probability of each bin's middle distance."""
    return np.asarray(expit(calibration.slope * sweep.centres + calibration.intercept))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A score with its confidence interval: 2.5 % of resampled data sets lie below `low`, as many above `high`."""

    value: float
    low: float
    high: float


def bootstrap(images: Sequence[Confusion], *, resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
    """Every score with a 95 % interval by the bootstrap over images: pixels of one image are no independent evidence.

    Args:
        images: the confusion of each image.
    """
    if not images:
        raise ValueError("no image to score")
    counts = np.array([(c.tp, c.fp, c.fn, c.tn) for c in images], dtype=np.int64)
    random = np.random.default_rng(seed)
    drawn = [
        _confusion(counts[random.integers(0, len(counts), len(counts))].sum(axis=0)).scores() for _ in range(resamples)
    ]
    total = _confusion(counts.sum(axis=0)).scores()
    return {
        name: Interval(
            value=value,
            low=float(np.percentile([scores[name] for scores in drawn], 2.5)),
            high=float(np.percentile([scores[name] for scores in drawn], 97.5)),
        )
        for name, value in total.items()
    }


def _confusion(counts: NDArray[np.int64]) -> Confusion:
    tp, fp, fn, tn = (int(n) for n in counts)
    return Confusion(tp=tp, fp=fp, fn=fn, tn=tn)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Receiver operating characteristic, and precision over recall, at every threshold of a sweep.

    Attributes:
        false_alarm_rate, recall, precision: (bins + 1,), from the highest threshold, where nothing is called changed.
        roc_area: area under the first; `average_precision`: Σ precision · gain in recall.
    """

    false_alarm_rate: NDArray[np.float64]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    roc_area: float
    average_precision: float


def curves(sweep: ThresholdSweep) -> Curves:
    """Both curves of a sweep.

    Raises:
        ValueError: one of the classes has no pixel.
    """
    changed, unchanged = sweep.changed, sweep.unchanged
    if not (changed.any() and unchanged.any()):
        raise ValueError("curves need changed and unchanged pixels")
    tp = np.concatenate([[0], np.cumsum(changed[::-1])]).astype(np.float64)
    fp = np.concatenate([[0], np.cumsum(unchanged[::-1])]).astype(np.float64)
    recall, false_alarms = tp / tp[-1], fp / fp[-1]
    called = tp + fp
    precision = np.divide(tp, called, out=np.ones_like(tp), where=called > 0)
    return Curves(
        false_alarm_rate=false_alarms,
        recall=recall,
        precision=precision,
        roc_area=float(np.trapezoid(recall, false_alarms)),
        average_precision=float((np.diff(recall) * precision[1:]).sum()),
    )

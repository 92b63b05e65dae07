"""What methods without training reach on labelled samples, whose labels have no part in their statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dasnet.baselines.detector import probability
from dasnet.baselines.methods import Sheet, fit, untrained_named
from dasnet.baselines.reweighted import Threshold
from dasnet.baselines.statistics import Names
from dasnet.baselines.untrained import State
from dasnet.metrics import Confusion, ThresholdSweep
from dasnet.samples import NamedSamples, StoredSamples
from tiling.conventions import IGNORED

BINS = 4096
"""Bins of probabilities over [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """What a method without training reaches on a split.

    Attributes:
        confusion: totals at the method's own threshold.
        per_sample: the confusion of each sample; `indices`: which ones.
        sweep: labelled pixels by probability, from which the highest F1 that any threshold reaches comes.
        state: statistics of the split, of which `UNTRAINED[name].detector` makes a detector.
        threshold: on the statistic, for a person.
    """

    confusion: Confusion
    per_sample: Sequence[Confusion]
    indices: NDArray[np.int64]
    sweep: ThresholdSweep
    state: State
    threshold: str

    def at(self, probability: float) -> Confusion:
        """Totals at another threshold, of the probability."""
        return self.sweep.at(round(probability * BINS))


def score_untrained(
    name: str,
    source: NamedSamples,
    split: str,
    *,
    threshold: Threshold | None = None,
    read: Callable[[int], StoredSamples] | None = None,
) -> SplitScore:
    """Fit a method to all samples of a split, labelled or not, and score it on what is labelled, in this process.

    The labels have no part in the fit. One sample at a time is in memory. The caller gives the process one BLAS thread,
    as more add in another order: a limit that a thread sets for itself alone ends while others still compute.

    Args:
        name: a key of :data:`dasnet.baselines.methods.UNTRAINED`.
        threshold: another than the method's usual one.
        read: gives one sample by its index, where it is to be another than the source's.

    Raises:
        KeyError: no such method.
        InputError: the split has no sample.
        PredictorError: a threshold that the method cannot take.
        DegenerateStatisticsError: the statistics of the split say nothing.
    """
    method = untrained_named(name, threshold=threshold)
    indices = source.indices(split)
    read = read or (lambda index: source.read([index]))

    def sheets() -> Iterator[Sheet]:
        for index in indices:
            sample = read(int(index))
            yield sample.before[0], sample.after[0], sample.valid[0].all(axis=0)

    where = f"{source.path}, split {split}"
    names = Names(
        before=f"before in {where}", after=f"after in {where}", bands_before=source.bands, bands_after=source.bands
    )
    state = fit(method, sheets, names)
    detector = method.detector(state)
    sweep = ThresholdSweep(low=0.0, high=1.0, bins=BINS)
    per_sample = []
    for index in indices:
        sample = read(int(index))
        valid = sample.valid[0].all(axis=0)
        label = np.where(valid, sample.label[0], np.uint8(IGNORED))
        statistic = np.where(valid, detector.statistic(sample.before[0], sample.after[0], valid), 0)
        sweep.add(probability(statistic, detector.threshold), label)
        per_sample.append(Confusion.count(statistic >= detector.threshold, label))
    return SplitScore(
        confusion=sum(per_sample, Confusion()),
        per_sample=per_sample,
        indices=indices,
        sweep=sweep,
        state=state,
        threshold=detector.describe(),
    )

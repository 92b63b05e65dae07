"""A method without training in a comparison: scored once for a dataset, and kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dasnet.baselines.detector import Detector, probability
from dasnet.baselines.methods import UNTRAINED, Sheet, fit, untrained_named
from dasnet.baselines.reweighted import Threshold
from dasnet.baselines.statistics import Names
from dasnet.baselines.untrained import State
from dasnet.metrics import Confusion, ThresholdSweep
from flows.comparison.results import Result
from flows.run.directory import run_key
from storage.datasets.store import DatasetStore, Samples
from storage.places.publish import write_json_atomically
from tiling.conventions import IGNORED


@dataclass(frozen=True, kw_only=True)
class UntrainedScore:
    """What a method without training reaches.

    Attributes:
        threshold: of the probability, chosen on validation.
        identity: of method and threshold, short.
        detector: with the statistics of the test split.
        pairs_per_s: of the test split, its statistics and its scores together.
    """

    result: Result
    threshold: float
    identity: str
    detector: Detector
    pairs_per_s: float

    def called(self, samples: Samples) -> Sequence[NDArray[np.bool_]]:
        """Of each sample of the test split (s, s), True = called changed at the threshold of validation."""
        found = []
        for before, after, both in zip(samples.before, samples.after, samples.valid, strict=True):
            valid = both.all(axis=0)
            statistic = np.where(valid, self.detector.statistic(before, after, valid), 0)
            found.append(probability(statistic, self.detector.threshold) >= self.threshold)
        return found


def untrained(name: str, store: DatasetStore, path: Path) -> UntrainedScore:
    """Score a method on the test split at the threshold that the validation split chose, or read what was found.

    Its statistics are those of each split as a whole; labels have a part in the threshold alone.

    Args:
        path: JSON file that keeps the result.

    Raises:
        InputError: a split without samples.
        DegenerateStatisticsError: the statistics of a split say nothing.
    """
    method = UNTRAINED[name]
    identity = {
        "method": name,
        "version": method.version,
        "parameters": dict(method.parameters),
        "dataset": store.digest,
    }
    facts = json.loads(path.read_text()) if path.exists() else {}
    if facts.get("identity") != json.loads(json.dumps(identity)):
        facts = {"identity": identity, **_scored(name, store)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomically(path, facts)
    return UntrainedScore(
        result=Result(
            name=name,
            seed=None,
            confusion=Confusion(**facts["confusion"]),
            highest_f1=facts["highest_f1"],
            validation_f1=facts["validation_f1"],
            own_f1=facts["own_f1"],
        ),
        threshold=facts["threshold"],
        identity=run_key({**identity, "threshold": facts["threshold"]})[:10],
        detector=method.detector(State.from_dict(facts["state"])),
        pairs_per_s=facts["pairs_per_s"],
    )


def _scored(name: str, store: DatasetStore) -> dict[str, Any]:
    threshold, chosen = score_untrained(name, store, "val").sweep.best()
    began = time.perf_counter()
    found = score_untrained(name, store, "test")
    seconds = time.perf_counter() - began
    confusion = found.at(threshold)
    return {
        "confusion": asdict(confusion),
        "highest_f1": found.sweep.best()[1].f1,
        "validation_f1": chosen.f1,
        "own_f1": found.confusion.f1,
        "threshold": threshold,
        "state": found.state.to_dict(),
        "pairs_per_s": len(found.indices) / seconds,
    }


BINS = 4096
"""Of probabilities over [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """What a method without training reaches on a split.

    Attributes:
        confusion: totals at the method's own threshold.
        per_sample: of each sample; `indices`: which ones.
        sweep: labelled pixels by probability, from which the highest F1 that any threshold reaches comes.
        state: statistics of the split, of which `UNTRAINED[name].detector` makes a detector.
        threshold: of the statistic, for a person.
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
    store: DatasetStore,
    split: str,
    *,
    threshold: Threshold | None = None,
    read: Callable[[int], Samples] | None = None,
) -> SplitScore:
    """Fit a method to all samples of a split, labelled or not, and score it on what is labelled, in this process.

    The labels have no part in the fit. One sample at a time is in memory.

    Args:
        name: of :data:`dasnet.baselines.methods.UNTRAINED`.
        threshold: another than the method's usual one.
        read: gives one sample by its index, where it is to be another than the store's.

    Raises:
        KeyError: no such method.
        InputError: the split has no sample.
        PredictorError: a threshold that the method cannot take.
        DegenerateStatisticsError: the statistics of the split say nothing.
    """
    method = untrained_named(name, threshold=threshold)
    indices = store.indices(split)
    read = read or (lambda index: store.read([index]))

    def sheets() -> Iterator[Sheet]:
        for index in indices:
            sample = read(int(index))
            yield sample.before[0], sample.after[0], sample.valid[0].all(axis=0)

    where = f"{store.path}, split {split}"
    names = Names(
        before=f"before in {where}", after=f"after in {where}", bands_before=store.bands, bands_after=store.bands
    )
    state = fit(method, sheets, names)
    detector = method.detector(state)
    sweep = ThresholdSweep(low=0.0, high=1.0, bins=BINS)
    per_sample = []
    with threadpool_limits(limits=1, user_api="blas"):
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

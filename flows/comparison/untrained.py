"""A method without training in a comparison: scored once for a dataset, and kept."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dasnet.baselines.detector import Detector, probability
from dasnet.baselines.methods import UNTRAINED
from dasnet.baselines.scoring import score_untrained
from dasnet.baselines.untrained import State
from dasnet.metrics import Confusion
from flows.comparison.results import Result
from flows.run.directory import sha256_of_facts
from storage.datasets.store import DatasetStore, Samples
from storage.places.publish import write_json_atomically


@dataclass(frozen=True, kw_only=True)
class UntrainedScore:
    """What a method without training reaches.

    Attributes:
        threshold: probability from which a pixel is called changed, chosen on validation.
        identity: short digest of method and threshold.
        detector: has the statistics of the test split.
        pairs_per_s: pairs of the test split a second, its statistics and its scores together.
    """

    result: Result
    threshold: float
    identity: str
    detector: Detector
    pairs_per_s: float

    def called(self, samples: Samples) -> Sequence[NDArray[np.bool_]]:
        """Where samples of the test split, (s, s) each, are called changed at the threshold of validation."""
        masks = []
        for before, after, both in zip(samples.before, samples.after, samples.valid, strict=True):
            valid = both.all(axis=0)
            statistic = np.where(valid, self.detector.statistic(before, after, valid), 0)
            masks.append(probability(statistic, self.detector.threshold) >= self.threshold)
        return masks


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
        with threadpool_limits(limits=1, user_api="blas"):
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
        identity=sha256_of_facts({**identity, "threshold": facts["threshold"]})[:10],
        detector=method.detector(State.from_dict(facts["state"])),
        pairs_per_s=facts["pairs_per_s"],
    )


def _scored(name: str, store: DatasetStore) -> dict[str, Any]:
    threshold, chosen = score_untrained(name, store, "val").sweep.best()
    began = time.perf_counter()
    test = score_untrained(name, store, "test")
    seconds = time.perf_counter() - began
    confusion = test.at(threshold)
    return {
        "confusion": asdict(confusion),
        "highest_f1": test.sweep.best()[1].f1,
        "validation_f1": chosen.f1,
        "own_f1": test.confusion.f1,
        "threshold": threshold,
        "state": test.state.to_dict(),
        "pairs_per_s": len(test.indices) / seconds,
    }

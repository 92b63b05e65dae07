"""Scores of a bundle on a split: samples through the cluster, totals here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasnet.evaluation import Curves, Interval, Reliability, bootstrap, calibrated, curves, reliability
from dasnet.metrics import Confusion, ThresholdSweep
from dasnet.prediction.bundle import Bundle, load_bundle
from dasnet.prediction.header import portable_name
from dasnet.prediction.network import Precision
from flows.cluster.config import ClusterConfig
from flows.cluster.stage import ConnectCluster, Effort, Stage, Tool, run_stage
from flows.dataset.fitting import fitted
from flows.evaluation.tools import BINS, CHANGE_VECTORS, make_scoring_tool
from flows.run.directory import RunDirectory
from flows.run.observer import current_observer
from storage.datasets.store import DatasetStore
from storage.errors import InputError
from tiling.ledger import Ledger

_CHUNK = 32
_ENOUGH_SCENES = 20


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a bundle reaches on a split.

    Attributes:
        confusion: totals at the bundle's frozen threshold.
        intervals: each score with its 95 % interval, by the bootstrap over images.
        images: what the bootstrap draws: "scenes", or "samples" where there are few scenes.
        highest: distance and confusion of the highest F1 that any threshold reaches on this very split; the way the
            DASNet authors report theirs.
        no_change, change_vectors: the peers: nothing is called changed; change vectors cut by Otsu.
        per_sample: confusion of each sample; `indices`: which ones.
    """

    confusion: Confusion
    intervals: Mapping[str, Interval]
    images: str
    highest: tuple[float, Confusion]
    curves: Curves
    reliability: Reliability
    no_change: Confusion
    change_vectors: Confusion
    per_sample: Sequence[Confusion]
    indices: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return {
            **{name: interval.value for name, interval in self.intervals.items()},
            **asdict(self.confusion),
            "intervals_95": {name: [interval.low, interval.high] for name, interval in self.intervals.items()},
            "bootstrap_over": self.images,
            "highest_f1_of_any_threshold": self.highest[1].f1,
            "highest_f1_at_distance": self.highest[0],
            "roc_area": self.curves.roc_area,
            "average_precision": self.curves.average_precision,
            "calibration_error": self.reliability.error,
            "f1_no_change": self.no_change.f1,
            "f1_change_vectors_otsu": self.change_vectors.f1,
            "samples": len(self.per_sample),
        }


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A bundle that is scored over a cluster.

    Attributes:
        bundle: name of a shipped one, or a path.
        directory: what is scored is kept in its ledgers.
        suffix: tells stages and ledgers apart where one directory holds those of several.
    """

    bundle: str
    directory: RunDirectory[Path]
    cluster: ConnectCluster
    config: ClusterConfig
    precision: Precision = "float32"
    suffix: str = ""

    def run(self, stage: str, make_tool: Callable[..., Any], items: Sequence[tuple[str, Any]]) -> Ledger:
        """Score what an interrupted run has not scored yet.

        Args:
            make_tool: called on each worker with the bundle's name, a device and a precision.
            items: (name, what the tool is called with).

        Raises:
            FailedBlocksError: items that could not be read.
        """
        stage = f"{stage} {self.suffix}".strip()
        ledger = self.directory.ledger(stage.replace(" ", "-"))
        ledger.forget_failed("run again")
        device = "cuda" if self.config.kind == "cuda" else "auto"
        make = partial(make_tool, portable_name(self.bundle), device, self.precision)
        result = run_stage(
            Stage(name=stage, tool=Tool(make=lambda layout: make), items=items, total=len(items), ledger=ledger),
            cluster=self.cluster,
            effort=Effort(in_flight=self.config.in_flight, retries=2),
        )
        result.require_all(self.directory.path, again="again")
        return ledger


def score(scoring: Scoring, store: DatasetStore, split: str) -> Score:
    """Score a split over the cluster.

    Raises:
        InputError: a bundle for other bands, or a split without samples or of one class.
        FailedBlocksError: samples that could not be read.
    """
    bundle = load_bundle(scoring.bundle)
    store = fitted(store, bundle, name=scoring.bundle)
    indices = store.indices(split)
    if lacking := store.lacks(split):
        raise InputError(f"{store.path}, split {split}: not one {lacking} pixel, so there is nothing to score")
    items = _items(indices)
    make_tool = partial(make_scoring_tool, store, split)
    ledger = scoring.run(f"score {split}", make_tool, [(CHANGE_VECTORS, CHANGE_VECTORS), *items])
    change_vectors = ledger.entry(CHANGE_VECTORS).facts["confusion"]
    reached = _totals([ledger.entry(name).facts for name, _ in items], change_vectors, bundle, store, indices)
    current_observer().end(
        f"{len(indices):,} samples, F1 {reached.confusion.f1:.3f} (change vectors {reached.change_vectors.f1:.3f})"
    )
    return reached


def swept(scoring: Scoring, store: DatasetStore, split: str) -> ThresholdSweep:
    """Distances of a split over the cluster, counted against their labels: every threshold can be judged by them.

    Raises:
        InputError: a bundle for other bands, or a split without samples.
        FailedBlocksError: samples that could not be read.
    """
    store = fitted(store, load_bundle(scoring.bundle), name=scoring.bundle)
    items = _items(store.indices(split))
    ledger = scoring.run(f"score {split}", partial(make_scoring_tool, store, split), items)
    return _sweep_of([ledger.entry(name).facts for name, _ in items])


def at_frozen_threshold(scoring: Scoring, store: DatasetStore, split: str) -> Confusion:
    """Totals of a split at the bundle's frozen threshold, over the cluster.

    Raises:
        InputError: a bundle for other bands, or a split without samples.
        FailedBlocksError: samples that could not be read.
    """
    store = fitted(store, load_bundle(scoring.bundle), name=scoring.bundle)
    items = _items(store.indices(split))
    ledger = scoring.run(f"score {split}", partial(make_scoring_tool, store, split), items)
    total = sum(
        (Confusion.of(counts) for name, _ in items for counts in ledger.entry(name).facts["samples"]), Confusion()
    )
    current_observer().end(f"{len(store.indices(split)):,} samples, F1 {total.f1:.4f}")
    return total


def _items(indices: NDArray[np.int64]) -> list[tuple[str, tuple[int, ...]]]:
    """(name, samples) of each part of a split."""
    chunks = [tuple(int(i) for i in indices[first : first + _CHUNK]) for first in range(0, len(indices), _CHUNK)]
    return [(f"{n:06d}", chunk) for n, chunk in enumerate(chunks)]


def _sweep_of(facts: Sequence[Mapping[str, Any]]) -> ThresholdSweep:
    distances = sum((_dense(fact["distances"], BINS) for fact in facts), np.zeros((2, BINS), dtype=np.int64))
    sweep = ThresholdSweep(low=0.0, high=2.0, bins=BINS)
    sweep.add_counts(unchanged=distances[0], changed=distances[1])
    return sweep


def _totals(
    facts: Sequence[Mapping[str, Any]],
    change_vectors: Sequence[int] | None,
    bundle: Bundle,
    store: DatasetStore,
    indices: NDArray[np.int64],
) -> Score:
    sweep = _sweep_of(facts)
    per_sample = [Confusion.of(counts) for fact in facts for counts in fact["samples"]]
    total = sum(per_sample, Confusion())
    scenes: dict[str, Confusion] = {}
    for index, confusion in zip(indices, per_sample, strict=True):
        scenes[store.sources[index]] = scenes.get(store.sources[index], Confusion()) + confusion
    no_change = Confusion(fn=total.tp + total.fn, tn=total.tn + total.fp)
    images = "scenes" if len(scenes) >= _ENOUGH_SCENES else "samples"
    return Score(
        confusion=total,
        intervals=bootstrap(list(scenes.values()) if images == "scenes" else per_sample),
        images=images,
        highest=sweep.best(),
        curves=curves(sweep),
        reliability=reliability(calibrated(bundle.calibration, sweep), sweep),
        no_change=no_change,
        change_vectors=no_change if change_vectors is None else Confusion.of(change_vectors),
        per_sample=per_sample,
        indices=indices,
    )


def _dense(sparse: Sequence[Sequence[Sequence[int]]], bins: int) -> NDArray[np.int64]:
    counts = np.zeros((2, bins), dtype=np.int64)
    for row, pairs in zip(counts, sparse, strict=True):
        for bin, count in pairs:
            row[bin] = count
    return counts


SCORES = ("f1", "precision", "recall", "accuracy", "iou", "kappa")


def peer_rows(score: Score, name: str) -> list[list[str]]:
    """(method, F1, precision, recall, accuracy) of a bundle and of what it must beat."""
    rows = [(f"{name}, frozen threshold", score.confusion)]
    rows += [("always “no change”", score.no_change), ("change vectors, Otsu's threshold", score.change_vectors)]
    return [[what, f"{c.f1:.3f}", f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.accuracy:.3f}"] for what, c in rows]


PEER_HEADER = ("method", "F1", "precision", "recall", "accuracy")


def score_rows(score: Score) -> list[list[str]]:
    """(score, value, 95 % interval)."""
    return [
        [name, f"{interval.value:.4f}", f"{interval.low:.4f} – {interval.high:.4f}"]
        for name in SCORES
        for interval in [score.intervals[name]]
    ]

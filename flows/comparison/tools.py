"""What a worker runs for a comparison: scores of pseudo-changed samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from dasnet.baselines.scoring import score_untrained
from dasnet.metrics import Confusion
from dasnet.prediction.bundle import load_bundle
from dasnet.prediction.predictor import DasnetPredictor
from dasnet.training.pseudo_changes import pseudo_changed
from storage.datasets.store import DatasetStore, Samples


@dataclass(frozen=True, kw_only=True)
class RobustnessTool:
    """On a worker: some samples with one pseudo-change, judged by a network at the frozen threshold."""

    store: DatasetStore
    predictor: DasnetPredictor
    cut: float
    peak: float

    def __call__(self, item: tuple[str, float, tuple[int, ...]]) -> Mapping[str, Any]:
        operation, strength, indices = item
        total = Confusion()
        for index in indices:
            sample = pseudo_changed_sample(self.store, index, operation=operation, strength=strength, peak=self.peak)
            images = np.stack([sample.before, sample.after], axis=1)
            distance = self.predictor.distances(images, sample.valid)[0, 0]
            total += Confusion.count(distance >= self.cut, sample.label[0])
        return asdict(total)


@dataclass(frozen=True, kw_only=True)
class UntrainedRobustnessTool:
    """On a worker: the whole split with one pseudo-change, to which a method without training is fitted anew."""

    store: DatasetStore
    method: str
    threshold: float
    peak: float

    def __call__(self, item: tuple[str, float]) -> Mapping[str, Any]:
        operation, strength = item
        read = partial(pseudo_changed_sample, self.store, operation=operation, strength=strength, peak=self.peak)
        return asdict(score_untrained(self.method, self.store, "test", read=read).at(self.threshold))


def make_untrained_robustness_tool(
    store: DatasetStore, method: str, threshold: float, peak: float
) -> UntrainedRobustnessTool:
    """Runs once on each worker. One BLAS thread for all of its threads, from now on."""
    threadpool_limits(limits=1, user_api="blas")
    return UntrainedRobustnessTool(store=store, method=method, threshold=threshold, peak=peak)


def pseudo_changed_sample(store: DatasetStore, index: int, *, operation: str, strength: float, peak: float) -> Samples:
    """One sample of a store as
    :func:`dasnet.training.pseudo_changes.pseudo_changed` makes it; all methods see the same."""
    stored = store.read([index])
    sample = (stored.before[0], stored.after[0], stored.valid[0], stored.label[0])
    before, after, valid, label = pseudo_changed(sample, operation=operation, strength=strength, seed=index, peak=peak)
    return Samples(before=before[None], after=after[None], valid=valid[None], label=label[None])


def make_robustness_tool(store: DatasetStore, bundle: Path, device: str, peak: float) -> RobustnessTool:
    """Runs once on each worker: loads the model there."""
    torch.set_num_threads(1)
    loaded = load_bundle(bundle)
    return RobustnessTool(
        store=store, predictor=DasnetPredictor(loaded, device=device, precision="float32"), cut=loaded.cut, peak=peak
    )

"""Scores against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from dasnet.metrics import Confusion, ThresholdSweep
from tiling.conventions import IGNORED

pairs = st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1, IGNORED])), min_size=1, max_size=200)


@settings(deadline=None)
@given(pairs)
def test_scores_are_those_of_scikit_learn(pixels: list[tuple[bool, int]]) -> None:
    called = np.array([pixel[0] for pixel in pixels])
    labels = np.array([pixel[1] for pixel in pixels], dtype=np.uint8)
    found = Confusion.count(called, labels)
    counted = labels != IGNORED
    y, p = labels[counted].astype(int), called[counted].astype(int)
    assert found.total == counted.sum()
    if not len(y):
        assert set(found.scores().values()) == {0.0}
        return
    assert ((found.tn, found.fp), (found.fn, found.tp)) == tuple(
        map(tuple, oracle.confusion_matrix(y, p, labels=[0, 1]))
    )
    assert found.precision == pytest.approx(oracle.precision_score(y, p, zero_division=0))
    assert found.recall == pytest.approx(oracle.recall_score(y, p, zero_division=0))
    assert found.f1 == pytest.approx(oracle.f1_score(y, p, zero_division=0))
    assert found.iou == pytest.approx(oracle.jaccard_score(y, p, zero_division=0))
    assert found.accuracy == pytest.approx(oracle.accuracy_score(y, p))
    if len(np.unique(np.concatenate([y, p]))) > 1:
        assert found.kappa == pytest.approx(oracle.cohen_kappa_score(y, p))


def test_totals_of_images_are_the_total_of_all() -> None:
    random = np.random.default_rng(0)
    called, labels = random.random((3, 40, 50)) < 0.3, random.choice([0, 1, IGNORED], (3, 40, 50))
    parts = [Confusion.count(c, y) for c, y in zip(called, labels, strict=True)]
    assert sum(parts, Confusion()) == Confusion.count(called, labels)


def test_totals_beyond_32_bits() -> None:
    region = Confusion(tp=6_000_000_000, fp=2_000_000_000, fn=3_000_000_000, tn=90_000_000_000)
    assert region.f1 == pytest.approx(12 / 17)
    assert -1 < region.kappa < 1


def test_sweep_is_exact_at_every_threshold_and_finds_the_best() -> None:
    random = np.random.default_rng(1)
    labels = random.choice([0, 0, 0, 1, IGNORED], (4, 60, 60)).astype(np.uint8)
    values = np.clip(0.35 * (labels == 1) + random.random(labels.shape) * 0.65, 0, 1).astype(np.float32)
    values[0, 0, :4] = (0.0, 0.25, 0.5, 1.0)  # on edges, and at both ends
    sweep = ThresholdSweep(bins=64)
    for value, label in zip(values, labels, strict=True):
        sweep.add(value, label)
    confusions = [Confusion.count(values >= threshold, labels) for threshold in sweep.thresholds]
    assert [sweep.at(n) for n in range(64)] == confusions
    threshold, best = sweep.best()
    counted = labels != IGNORED
    scores = [oracle.f1_score(labels[counted], values[counted] >= t) for t in sweep.thresholds]
    assert best.f1 == pytest.approx(max(scores))
    assert threshold == sweep.thresholds[int(np.argmax(scores))]


def test_sweep_of_nan_and_of_strange_values_or_labels_is_refused() -> None:
    sweep = ThresholdSweep()
    for value in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"values lie in \[0.0, 1.0\]"):
            sweep.add([value], [1])
    sweep.add([np.nan, 0.5], [IGNORED, 0])
    with pytest.raises(ValueError, match="no changed pixel"):
        sweep.best()
    with pytest.raises(ValueError, match="labels are 0, 1 and 255, not"):
        sweep.add([0.5], [2])
    with pytest.raises(ValueError, match="do not fit labels"):
        sweep.add([0.5], [1, 0])
    with pytest.raises(ValueError, match="do not fit labels"):
        Confusion.count([True], [1, 0])
    with pytest.raises(ValueError, match="low < high"):
        ThresholdSweep(low=1, high=1)
    with pytest.raises(ValueError, match="not negative"):
        Confusion(tp=-1)

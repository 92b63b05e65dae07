"""Scores, curves and calibration against scikit-learn; the bootstrap against what it estimates."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as oracle

from dasnet.evaluation import bootstrap, curves, reliability
from dasnet.metrics import Confusion, ThresholdSweep

RANDOM = np.random.default_rng(11)
BINS = 512


def drawn(count: int = 20_000) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Distances on the bins' edges, where binning loses nothing, and labels that go with them; some unknown."""
    labels = (RANDOM.random(count) < 0.2).astype(np.uint8)
    steps = np.clip(RANDOM.normal(180 + 120 * labels, 70), 0, BINS - 1).astype(int)
    labels[RANDOM.random(count) < 0.05] = 255
    return (steps * (2 / BINS)).astype(np.float32), labels


def sweep_of(distance: NDArray[np.float32], labels: NDArray[np.uint8]) -> ThresholdSweep:
    sweep = ThresholdSweep(low=0.0, high=2.0, bins=BINS)
    sweep.add(distance, labels)
    return sweep


def test_scores_are_those_of_scikit_learn() -> None:
    distance, labels = drawn()
    cut, best = sweep_of(distance, labels).best()
    known = labels != 255
    called, truth = distance[known] >= cut, labels[known]
    scores = Confusion.count(distance >= cut, labels).scores()
    assert scores == pytest.approx(
        {
            "precision": oracle.precision_score(truth, called),
            "recall": oracle.recall_score(truth, called),
            "f1": oracle.f1_score(truth, called),
            "iou": oracle.jaccard_score(truth, called),
            "accuracy": oracle.accuracy_score(truth, called),
            "kappa": oracle.cohen_kappa_score(truth, called),
        }
    )
    assert best.f1 == scores["f1"]


def test_curves_are_those_of_scikit_learn() -> None:
    distance, labels = drawn()
    known = labels != 255
    found = curves(sweep_of(distance, labels))
    assert found.roc_area == pytest.approx(oracle.roc_auc_score(labels[known], distance[known]))
    assert found.average_precision == pytest.approx(oracle.average_precision_score(labels[known], distance[known]))
    assert (np.diff(found.recall) >= 0).all() and found.recall[-1] == found.false_alarm_rate[-1] == 1


def test_a_perfect_calibration_has_no_error_and_a_bold_one_has_a_known_one() -> None:
    sweep = ThresholdSweep(low=0.0, high=2.0, bins=4)
    sweep.add_counts(changed=[10, 30, 60, 90], unchanged=[90, 70, 40, 10])
    exact = reliability(np.array([0.1, 0.3, 0.6, 0.9]), sweep)
    assert exact.error == pytest.approx(0)
    np.testing.assert_allclose(exact.observed[[1, 3, 6, 9]], [0.1, 0.3, 0.6, 0.9])
    assert reliability(np.array([0.0, 0.2, 0.7, 1.0]), sweep).error == pytest.approx(0.1)
    assert np.isnan(exact.observed[0]) and exact.pixels.sum() == 400


def test_intervals_hold_the_truth_about_nineteen_times_in_twenty() -> None:
    inside = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        images = []
        for _ in range(60):
            difficulty = random.beta(8, 3)
            tp = int(random.binomial(50, difficulty))
            images.append(Confusion(tp=tp, fp=10, fn=50 - tp, tn=500))
        found = bootstrap(images, resamples=300, seed=seed)["recall"]
        assert found.low <= found.value <= found.high
        inside += found.low <= 8 / 11 <= found.high
    assert 50 <= inside <= 60


def test_one_image_alone_has_no_spread() -> None:
    found = bootstrap([Confusion(tp=5, fp=1, fn=2, tn=9)])["f1"]
    assert found.low == found.value == found.high
    with pytest.raises(ValueError, match="no image"):
        bootstrap([])

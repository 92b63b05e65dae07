"""Scores from totals of pixels: a data set has one confusion, summed over all of it, never a mean over images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiling.conventions import IGNORED

"""Label of a pixel that does not count."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Totals of pixels. Add the confusions of two images to get that of both.

    A score without anything to score (no pixel called changed for the precision, none changed for the recall) is 0.

    Attributes:
        tp: changed, called changed.
        fp: unchanged, called changed.
        fn: changed, called unchanged.
        tn: unchanged, called unchanged.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __post_init__(self) -> None:
        if min(self.tp, self.fp, self.fn, self.tn) < 0:
            raise ValueError(f"totals of pixels are not negative: {self}")

    @classmethod
    def of(cls, counts: Iterable[int]) -> Confusion:
        """What :func:`dataclasses.astuple` gave: tp, fp, fn, tn."""
        return cls(**dict(zip(("tp", "fp", "fn", "tn"), counts, strict=True)))

    @classmethod
    def count(cls, called: ArrayLike, labels: ArrayLike) -> Confusion:
        """Count one image.

        Args:
            called: any shape, True = called changed.
            labels: same shape; 1 = changed, 0 = unchanged, 255 = does not count.
        """
        called, labels = np.asarray(called, dtype=bool), _checked(labels)
        if called.shape != labels.shape:
            raise ValueError(f"predictions of shape {called.shape} do not fit labels of shape {labels.shape}")
        changed, unchanged = labels == 1, labels == 0
        tp, fp = int((called & changed).sum()), int((called & unchanged).sum())
        return cls(tp=tp, fp=fp, fn=int(changed.sum()) - tp, tn=int(unchanged.sum()) - fp)

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(tp=self.tp + other.tp, fp=self.fp + other.fp, fn=self.fn + other.fn, tn=self.tn + other.tn)

    @property
    def total(self) -> int:
        """Pixels counted."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def precision(self) -> float:
        """Share of what was called changed that is."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of what is changed that was called so."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, of the class "changed"."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """Intersection over union of the class "changed"."""
        return _share(self.tp, self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float:
        """Overall accuracy: share of pixels called right."""
        return _share(self.tp + self.tn, self.total)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: accuracy above what chance would reach with these totals; 0 where that is undefined."""
        n = self.total
        chance = (self.tp + self.fp) * (self.tp + self.fn) + (self.fn + self.tn) * (self.fp + self.tn)
        return _share((self.tp + self.tn) * n - chance, n * n - chance)

    def describe(self) -> str:
        """The usual four for one line of text."""
        return (
            f"F1 {self.f1:.3f}, precision {self.precision:.3f}, recall {self.recall:.3f}, accuracy {self.accuracy:.3f}"
        )

    def scores(self) -> dict[str, float]:
        """All scores by name, each in [0, 1] (kappa in [−1, 1])."""
        names = ("precision", "recall", "f1", "iou", "accuracy", "kappa")
        return {name: getattr(self, name) for name in names}


class ThresholdSweep:
    """Confusions at every threshold at once, from two histograms: memory does not grow with the pixels swept.

    A pixel is called changed where its value is at or above the threshold, and thresholds stand on the edges of equal
    bins over [low, high], so that every confusion is exact.
    """

    def __init__(self, *, low: float = 0.0, high: float = 1.0, bins: int = 256) -> None:
        if not (low < high and bins >= 1):
            raise ValueError(f"a sweep needs low < high and one bin or more, not {low} … {high} in {bins} bins")
        self._edges = np.linspace(low, high, bins + 1)
        self._changed = np.zeros(bins, dtype=np.int64)
        self._unchanged = np.zeros(bins, dtype=np.int64)

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """(bins,) ascending; the first is `low`, where every pixel is called changed."""
        return self._edges[:-1]

    @property
    def centres(self) -> NDArray[np.float64]:
        """(bins,) middle values of the bins."""
        return (self._edges[:-1] + self._edges[1:]) / 2

    @property
    def changed(self) -> NDArray[np.int64]:
        """(bins,) changed pixels by value."""
        return self._changed.copy()

    @property
    def unchanged(self) -> NDArray[np.int64]:
        """(bins,) unchanged pixels by value."""
        return self._unchanged.copy()

    def add(self, values: ArrayLike, labels: ArrayLike) -> None:
        """Count one image: values of any shape, labels 1, 0 or 255 (does not count) of the same shape.

        Raises:
            ValueError: another shape, other labels, or a counted value that is NaN or outside [low, high].
        """
        values, labels = np.asarray(values, dtype=np.float64), _checked(labels)
        if values.shape != labels.shape:
            raise ValueError(f"values of shape {values.shape} do not fit labels of shape {labels.shape}")
        for label, histogram in ((1, self._changed), (0, self._unchanged)):
            chosen = values[labels == label]
            if chosen.size and not (chosen.min() >= self._edges[0] and chosen.max() <= self._edges[-1]):
                raise ValueError(
                    f"values lie in [{self._edges[0]}, {self._edges[-1]}], not in [{chosen.min()}, {chosen.max()}]"
                )
            # by a range, not by edges: numpy need not search then
            histogram += np.histogram(chosen, bins=len(histogram), range=(self._edges[0], self._edges[-1]))[0]

    def add_counts(self, *, changed: ArrayLike, unchanged: ArrayLike) -> None:
        """Count pixels that somebody else sorted into the same bins: (bins,) each."""
        for histogram, counts in ((self._changed, changed), (self._unchanged, unchanged)):
            counts = np.asarray(counts, dtype=np.int64)
            if counts.shape != histogram.shape or (counts < 0).any():
                raise ValueError(f"{histogram.shape} counts of pixels are wanted, not {counts.shape}, none negative")
            histogram += counts

    def at(self, index: int) -> Confusion:
        """The confusion at ``thresholds[index]``."""
        tp, fp = int(self._changed[index:].sum()), int(self._unchanged[index:].sum())
        return Confusion(tp=tp, fp=fp, fn=int(self._changed.sum()) - tp, tn=int(self._unchanged.sum()) - fp)

    def best(self, among: NDArray[np.int64] | None = None) -> tuple[float, Confusion]:
        """The threshold of the highest F1, the lowest of them if several have it, and its confusion.

        Args:
            among: indices of the thresholds that can be chosen, ascending; None = all.

        Raises:
            ValueError: no changed pixel was counted, so that no threshold is better than another.
        """
        if not self._changed.any():
            raise ValueError("no changed pixel was counted: F1 is 0 at every threshold")
        tp = np.cumsum(self._changed[::-1])[::-1]
        fp = np.cumsum(self._unchanged[::-1])[::-1]
        f1 = 2 * tp / (tp + fp + self._changed.sum())
        index = int(np.argmax(f1) if among is None else among[np.argmax(f1[among])])
        return float(self.thresholds[index]), self.at(index)


def _checked(labels: ArrayLike) -> NDArray[np.generic]:
    labels = np.asarray(labels)
    strange = ~np.isin(labels, (0, 1, IGNORED))
    if strange.any():
        raise ValueError(f"labels are 0, 1 and {IGNORED}, not {np.unique(labels[strange])[:8].tolist()}")
    return labels


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0

"""How rare change is, and the weights that make up for it: eq. (7), (8) and Table I of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClassFrequency:
    """Labelled pixels by class. Add the frequencies of two splits to get that of both.

    Attributes:
        changed, unchanged: pixels; ignored ones are in neither.
    """

    changed: int
    unchanged: int

    def __post_init__(self) -> None:
        if min(self.changed, self.unchanged) < 0:
            raise ValueError(f"pixels are counted, not {self.changed} changed and {self.unchanged} unchanged")

    def __add__(self, other: ClassFrequency) -> ClassFrequency:
        return ClassFrequency(changed=self.changed + other.changed, unchanged=self.unchanged + other.unchanged)

    @property
    def total(self) -> int:
        return self.changed + self.unchanged

    @property
    def ratio(self) -> float:
        """Changed over unchanged pixels, as Table I prints it; 0 where nothing is unchanged."""
        return self.changed / self.unchanged if self.unchanged else 0.0

    @property
    def share_changed(self) -> float:
        """P_C, in [0, 1]."""
        return self.changed / self.total if self.total else 0.0

    @property
    def share_unchanged(self) -> float:
        """P_U, in [0, 1]."""
        return self.unchanged / self.total if self.total else 0.0

    @property
    def weights(self) -> tuple[float, float]:
        """w1 = 1 / P_U of unchanged and w2 = 1 / P_C of changed pairs, eq. (7) and (8).

        The sentence after eq. (8) swaps the two names; by it the rare class would weigh less.

        Raises:
            ValueError: a class has no pixel, its weight would be infinite.
        """
        if not (self.changed and self.unchanged):
            raise ValueError(
                f"{self.changed:,} changed and {self.unchanged:,} unchanged pixels: a class without a pixel has no "
                "finite weight"
            )
        return 1 / self.share_unchanged, 1 / self.share_changed

    @property
    def normalised_weights(self) -> tuple[float, float]:
        """The same two, scaled so that they add up to 2: the learning rate keeps its meaning."""
        w1, w2 = self.weights
        return 2 * w1 / (w1 + w2), 2 * w2 / (w1 + w2)

    def to_dict(self) -> dict[str, float]:
        """All figures by name, ready for JSON; without weights where they would be infinite."""
        facts: dict[str, float] = {
            "changed": self.changed,
            "unchanged": self.unchanged,
            "ratio": self.ratio,
            "share_changed": self.share_changed,
            "share_unchanged": self.share_unchanged,
        }
        if self.changed and self.unchanged:
            (w1, w2), (n1, n2) = self.weights, self.normalised_weights
            facts |= {"w1_unchanged": w1, "w2_changed": w2, "w1_normalised": n1, "w2_normalised": n2}
        return facts


TABLE_HEADER = ("split", "samples", "changed", "unchanged", "ratio")


def table_one(splits: Mapping[str, tuple[int, ClassFrequency]]) -> list[list[str]]:
    """Rows as in Table I: a line for each split (samples, frequency), and the total."""
    counted = list(splits.values())
    total = sum((frequency for _, frequency in counted), ClassFrequency(changed=0, unchanged=0))
    lines = [*splits.items(), ("total", (sum(samples for samples, _ in counted), total))]
    return [
        [name, f"{samples:,}", f"{frequency.changed:,}", f"{frequency.unchanged:,}", f"{frequency.ratio:.3f}"]
        for name, (samples, frequency) in lines
    ]

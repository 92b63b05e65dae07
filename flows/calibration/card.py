"""What the card of a bundle says once it is calibrated anew."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from dasnet.evaluation import Reliability
from dasnet.metrics import Confusion
from dasnet.prediction.calibration import NOT_CALIBRATED
from storage.datasets.store import DatasetStore

HEADING = "## Calibrated"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a calibration was, and what it has become; all of it on the samples that it was fitted to.

    Attributes:
        threshold_before, threshold: on the probability.
        before, after: scores at either threshold.
        reliability_before, reliability: of either calibration's probability.
        samples: how many.
    """

    threshold_before: float
    threshold: float
    before: Confusion
    after: Confusion
    reliability_before: Reliability
    reliability: Reliability
    samples: int


def calibrated_card(card: str, fit: Fit, store: DatasetStore, split: str) -> str:
    """A card with a section of its last calibration; what it said of being uncalibrated, or of another one, is gone."""
    kept = [
        paragraph
        for paragraph in card.partition(f"\n{HEADING}\n")[0].strip().split("\n\n")
        if NOT_CALIBRATED not in paragraph
    ]
    text = (
        f"Calibration and threshold were fitted to the {split} split of {store.path.parent.name} "
        f"({fit.samples:,} samples, dataset SHA-256 {store.digest}). There the threshold, {fit.threshold:.3f} on the "
        f"probability, has the highest F1, {fit.after.f1:.3f} (precision {fit.after.precision:.3f}, recall "
        f"{fit.after.recall:.3f}); the threshold before, {fit.threshold_before:.3f}, had {fit.before.f1:.3f}. Expected "
        f"calibration error {fit.reliability.error:.3f}, before {fit.reliability_before.error:.3f}. Scores that stand "
        "above are those of the threshold before."
    )
    return "\n\n".join([*kept, HEADING, textwrap.fill(text, 120)]) + "\n"

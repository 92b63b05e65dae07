"""What a quantisation came to, and what the card of its bundle says of it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dasnet.metrics import Confusion
from dasnet.prediction.quantised.description import INTEGERS, QuantisedDescription

HEADING = "## Quantised"

ALLOWED_LOSS = 0.005
"""How much lower F1 at the frozen threshold may be in integers, on any split that is scored."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Scores of one split at the frozen threshold in both precisions.

    Attributes:
        samples: how many.
    """

    split: str
    samples: int
    float32: Confusion
    integers: Confusion

    @property
    def is_allowed(self) -> bool:
        """Whether F1 is at most :data:`ALLOWED_LOSS` lower in integers."""
        return self.integers.f1 >= self.float32.f1 - ALLOWED_LOSS

    @property
    def words(self) -> str:
        """F1 in both precisions."""
        return f"F1 {self.integers.f1:.4f} in int8, {self.float32.f1:.4f} in float32"


def facts_of(losses: Sequence[Loss]) -> dict[str, Any]:
    """Scores for the header's metrics, JSON."""
    return {
        loss.split: {"samples": loss.samples, "f1_int8": loss.integers.f1, "f1_float32": loss.float32.f1}
        for loss in losses
    }


def speed_words(milliseconds: Mapping[str, float]) -> str:
    """Each precision with its milliseconds, the fastest first."""
    ordered = sorted(milliseconds.items(), key=lambda entry: entry[1])
    return ", ".join(f"{precision} {duration:.3g} ms" for precision, duration in ordered)


def quantised_card(card: str, description: QuantisedDescription, losses: Sequence[Loss]) -> str:
    """A card with a section of its quantisation; that of an earlier one is gone."""
    made_with = " and ".join(f"{name} {version}" for name, version in sorted(description.made_with.items()))
    chosen = (
        f"`--precision auto` takes {INTEGERS} on CPUs where OpenVINO is installed."
        if description.is_fastest
        else f"{INTEGERS} was not the fastest there, so `--precision auto` does not take it."
    )
    text = (
        f"A graph of integers for CPUs stands beside the weights, made after training with {made_with} from "
        f"{description.images:,} images of the training split (dataset SHA-256 {description.dataset_sha256}). It is "
        "the embedding of one date; the distance of two stays float32. One date of "
        f"{description.side} × {description.side} px on one core of the machine that made it: "
        f"{speed_words(description.milliseconds)}. {chosen}"
    )
    rows = [
        "| split | samples | F1, float32 | F1, int8 |",
        "| --- | --- | --- | --- |",
        *(f"| {loss.split} | {loss.samples:,} | {loss.float32.f1:.4f} | {loss.integers.f1:.4f} |" for loss in losses),
    ]
    kept = card.partition(f"\n{HEADING}\n")[0].strip()
    parts = [kept, HEADING, textwrap.fill(text, 120), "At the frozen threshold:", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"

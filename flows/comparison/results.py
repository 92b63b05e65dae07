"""What a comparison found: figures of every training, and over seeds their mean and spread, as tables and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dasnet.metrics import Confusion

SCORES = ("recall", "precision", "f1", "iou", "accuracy", "kappa")
HIGHEST = "highest F1 of any threshold"
NAMES = (*SCORES, "highest_f1", "validation_f1", "f1_at_own_threshold")
"""Scores of a result in files."""
HEADER = ("", "seeds", "recall", "precision", "F1", "accuracy", HIGHEST, "parameters", "GFLOP a pair", "pairs/s")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One method on the test split, with one seed.

    Attributes:
        name: the training's directory, or a method without training.
        seed: None = nothing is drawn.
        confusion: totals at the threshold that validation chose.
        highest_f1: reached by any threshold, chosen on the test split itself.
        validation_f1: at the chosen threshold.
        own_f1: at the threshold of a method without training; None = it has none of its own.
    """

    name: str
    seed: int | None
    confusion: Confusion
    highest_f1: float
    validation_f1: float
    own_f1: float | None = None

    def figures(self) -> dict[str, float]:
        """All scores by name."""
        scores = self.confusion.scores()
        figures = {name: scores[name] for name in SCORES}
        figures |= {"highest_f1": self.highest_f1, "validation_f1": self.validation_f1}
        return figures if self.own_f1 is None else {**figures, "f1_at_own_threshold": self.own_f1}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method costs.

    Attributes:
        parameters: trained numbers; 0 = without training.
        flops: for one pair of windows, two a multiplication with its addition; None = not counted.
        pairs_per_s: pairs of windows a second on this machine; None = not measured.
    """

    parameters: int
    flops: int | None
    pairs_per_s: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant over all of its seeds.

    Attributes:
        failed: why, of each training or method that gave no result.
        cost: None where nothing of it could be had.
    """

    name: str
    results: Sequence[Result]
    failed: Sequence[tuple[str, str]] = ()
    cost: Cost | None = None
    figures: dict[str, tuple[float, float | None]] = field(init=False)
    """Mean and spread over the results of every score."""

    def __post_init__(self) -> None:
        each = [result.figures() for result in self.results]
        names = each[0] if each else ()
        object.__setattr__(self, "figures", {name: spread([one[name] for one in each]) for name in names})

    def cells(self) -> list[str]:
        """What stands below :data:`HEADER`."""
        seeds = f"{len(self.results)}" + (f" of {len(self.results) + len(self.failed)}" if self.failed else "")
        names = ("recall", "precision", "f1", "accuracy", "highest_f1")
        if any(result.seed is None for result in self.results):
            seeds = "none"
        scores = [shown(*self.figures[name]) if self.results else "failed" for name in names]
        return [self.name, seeds, *scores, *_cost_cells(self.cost)]


def best_of(rows: Sequence[Row]) -> Row | None:
    """The row with the highest mean F1, if any has a result."""
    return max((row for row in rows if row.results), key=lambda row: row.figures["f1"][0], default=None)


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation of a sample (divisor n − 1); None = one value has none."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def shown(mean: float, deviation: float | None) -> str:
    """0.873 ± 0.012."""
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _cost_cells(cost: Cost | None) -> list[str]:
    if cost is None:
        return ["", "", ""]
    return [
        f"{cost.parameters:,}" if cost.parameters else "none",
        "" if cost.flops is None else f"{cost.flops / 1e9:.3g}",
        "" if cost.pairs_per_s is None else f"{cost.pairs_per_s:.3g}",
    ]


def tables_csv(tables: Iterable[tuple[str, Sequence[Row]]]) -> str:
    """A line a row of a table: mean and spread of every score."""
    columns = [column for name in NAMES for column in (name, f"{name}_spread")]
    lines = []
    for table, rows in tables:
        for row in rows:
            values = [value for name in NAMES for value in row.figures.get(name, (None, None))]
            cost = [None] * 3 if row.cost is None else [row.cost.parameters, row.cost.flops, row.cost.pairs_per_s]
            reasons = "; ".join(f"{what}: {reason}" for what, reason in row.failed)
            lines.append([table, row.name, len(row.results), *values, *cost, reasons])
    return csv_of(["table", "row", "results", *columns, "parameters", "flops", "pairs_per_s", "failed"], lines)


def results_csv(results: Sequence[Result]) -> str:
    """A line a result, with its totals of pixels."""
    lines = []
    for result in {result.name: result for result in results}.values():
        figures, c = result.figures(), result.confusion
        lines.append([result.name, result.seed, *map(figures.get, NAMES), c.tp, c.fp, c.fn, c.tn])
    return csv_of(["result", "seed", *NAMES, "tp", "fp", "fn", "tn"], lines)


def csv_of(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A table as CSV; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    return text.getvalue()

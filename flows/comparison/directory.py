"""Where a comparison keeps what."""

from __future__ import annotations

from pathlib import Path

from flows.run.directory import RunDirectory


class ComparisonDirectory(RunDirectory[Path]):
    """``DIR/report.html`` and its tables; beside them all trainings, and what was measured once and is kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.report = path / "report.html"
        self.tables = path / "tables.md"
        self.tables_csv = path / "tables.csv"
        self.results_csv = path / "results.csv"
        self.robustness_csv = path / "robustness.csv"
        self.costs = path / "costs.json"
        self.trainings = path / "trainings"

    def untrained(self, method: str) -> Path:
        """What a method without training reaches."""
        return self.path / "untrained" / f"{method}.json"

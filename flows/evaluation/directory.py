"""Where an evaluation keeps what."""

from __future__ import annotations

from pathlib import Path

from flows.run.directory import RunDirectory


class EvaluationDirectory(RunDirectory[Path]):
    """``DIR/report.html``, ``DIR/evaluation.json``; ``DIR/run/`` is a run of detect over the mosaic."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.run = path / "run"
        self.report = path / "report.html"
        self.scores = path / "evaluation.json"

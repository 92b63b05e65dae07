"""Where a training keeps what."""

from __future__ import annotations

from pathlib import Path

from dasnet.training.directory import BUNDLE, HISTORY, WHOLE_HISTORY
from flows.run.directory import RunDirectory

SAMPLES = "samples.png"
"""In ``DIR/training/``, as what dasnet writes there: a few samples as the network judges them after the last epoch."""

LOCK = ".lock"
"""There too: held by the first rank, which may outlive the process that holds the directory."""


class TrainingDirectory(RunDirectory[Path]):
    """``DIR/bundle.safetensors``, ``DIR/report.html``; beside them ``training/`` with checkpoints and history."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.training = path / "training"
        self.steps = self.training / HISTORY
        self.samples = self.training / SAMPLES
        self.tensorboard = path / "tensorboard"
        self.bundle = path / BUNDLE
        self.draft = self.training / BUNDLE
        self.card = path / "card.md"
        self.metrics = path / "metrics.json"
        self.history = path / WHOLE_HISTORY
        self.report = path / "report.html"

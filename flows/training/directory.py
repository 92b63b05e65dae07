"""Where a training keeps what."""

from __future__ import annotations

from pathlib import Path

from flows.run.directory import RunDirectory


class TrainingDirectory(RunDirectory):
    """``DIR/bundle.safetensors``, ``DIR/report.html``; beside them ``training/`` with checkpoints and history."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.training = path / "training"
        self.tensorboard = path / "tensorboard"
        self.bundle = path / "bundle.safetensors"
        self.draft = self.training / "bundle.safetensors"

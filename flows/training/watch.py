"""What the first rank of a training writes, followed while it runs: progress, artifacts, TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from flows.run.artifacts import Picture, Table
from flows.run.observer import current_observer
from flows.training.directory import TrainingDirectory

EPOCH_HEADER = ("epoch", "loss", "F1", "precision", "recall", "accuracy", "threshold", "η", "γ", "rate", "pairs/s")


class Watch:
    """Follows the history that the first rank writes: progress, artifacts, TensorBoard.

    A resumed training writes again what came after its checkpoint; a step is shown once.
    """

    def __init__(self, directory: TrainingDirectory) -> None:
        self._directory = directory
        self._position = 0
        self._step = self._epoch = -1
        self._epochs: list[list[str]] = []

    def __enter__(self) -> Watch:
        # replayed from the history, so that one file has the whole curve however often training was resumed
        for old in self._directory.tensorboard.glob("events.*"):
            old.unlink()
        self._writer = SummaryWriter(str(self._directory.tensorboard))
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def look(self) -> None:
        """Show what is new."""
        for facts in self._new_lines():
            if facts["kind"] == "step" and facts["step"] > self._step:
                self._step = facts["step"]
                current_observer().advance()
                for name in sorted(set(facts) - {"kind", "epoch", "step"}):
                    self._writer.add_scalar(f"train/{name}", facts[name], self._step)
            elif facts["kind"] == "epoch" and facts["epoch"] > self._epoch:
                self._epoch = facts["epoch"]
                self._show_epoch(facts)

    def _new_lines(self) -> Iterator[dict[str, Any]]:
        history = self._directory.steps
        if not history.exists():
            return
        if history.stat().st_size < self._position:
            self._position = 0
        with history.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                yield json.loads(line)

    def _show_epoch(self, facts: dict[str, Any]) -> None:
        for name in (
            "f1",
            "precision",
            "recall",
            "accuracy",
            "threshold",
            "eta",
            "gamma",
            "device_share",
            "pairs_per_s",
        ):
            if facts[name] is not None:
                self._writer.add_scalar(f"validation/{name}", facts[name], self._epoch)
        self._writer.flush()
        self._epochs.append(epoch_row(facts))
        current_observer().show(Table("epochs", EPOCH_HEADER, self._epochs, "Validation by epoch"))
        if self._directory.samples.exists():
            sheet = self._directory.samples.read_bytes()
            current_observer().show(Picture("samples", sheet, "Validation samples after the last epoch"))


def epoch_row(facts: dict[str, Any]) -> list[str]:
    """One row of :data:`EPOCH_HEADER`."""

    def text(name: str, digits: int = 4) -> str:
        return "" if facts[name] is None else f"{facts[name]:.{digits}f}"

    scores = [text(name) for name in ("f1", "precision", "recall", "accuracy", "threshold", "eta", "gamma")]
    return [str(facts["epoch"] + 1), text("loss"), *scores, f"{facts['rate']:.2e}", f"{facts['pairs_per_s']:.1f}"]

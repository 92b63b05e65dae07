"""What a training leaves on disk, so that it goes on from there: checkpoint, best weights, history."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dasnet.errors import TrainingError
from dasnet.training.directory import BEST, CHECKPOINT, HISTORY


@dataclass(kw_only=True)
class Progress:
    """Where training stands; all of it is in the checkpoint.

    Attributes:
        epoch, step: the next step to take: epoch from 0, step within the epoch.
        best_f1, best_epoch: highest validation F1 so far and where; −1 = none yet.
        stopped: why training ended before its last epoch; empty = it did not.
    """

    epoch: int = 0
    step: int = 0
    best_f1: float = -1.0
    best_epoch: int = -1
    stopped: str = ""


class TrainingFiles:
    """A training's directory; all ranks load from it, the first one writes.

    Args:
        identity: stands for recipe, dataset and ranks: a checkpoint of another is refused.
    """

    def __init__(self, directory: Path, *, identity: str) -> None:
        self.directory, self._identity = directory, identity
        self._position = 0

    def save(self, state: Mapping[str, Any], progress: Progress) -> None:
        """Write a checkpoint, which goes with the history up to now."""
        described = {"identity": self._identity, "progress": asdict(progress), "position": self._position}
        _save_atomically(self.directory / CHECKPOINT, {**state, **described})

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write the weights that validation likes best."""
        _save_atomically(self.directory / BEST, state)

    def load(self) -> tuple[Mapping[str, Any], Progress] | None:
        """The last checkpoint and where it stands; None if there is none.

        Raises:
            TrainingError: a checkpoint of another recipe, dataset or number of ranks, or a damaged one.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / CHECKPOINT
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch has many for bytes that are not its own
            raise TrainingError(
                f"{path} cannot be read ({error}): delete {self.directory.parent} to train anew"
            ) from error
        if state["identity"] != self._identity:
            raise TrainingError(
                f"{path} belongs to another recipe, dataset or number of ranks: choose another directory, or "
                f"delete {self.directory.parent} to train anew"
            )
        self._position = state["position"]
        return state, Progress(**state["progress"])

    def cut_history(self) -> None:
        """Forget what came after the checkpoint: it is trained, and written, again."""
        history = self.directory / HISTORY
        if history.exists():
            with history.open("r+b") as file:
                file.truncate(self._position)

    def log(self, facts: Mapping[str, Any]) -> None:
        """Add a line to the history."""
        with (self.directory / HISTORY).open("ab") as file:
            file.write(json.dumps(facts).encode() + b"\n")
            self._position = file.tell()


def _save_atomically(path: Path, state: Mapping[str, Any]) -> None:
    """torch.save under a temporary name, forced to disk, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

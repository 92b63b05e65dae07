"""A training that may begin, and what it came to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from dasnet.training.checkpoints import Progress
from dasnet.training.recipes import Recipe
from dasnet.training.trained_bundle import TrainedBundle
from flows.evaluation.samples import Score
from flows.training.directory import TrainingDirectory
from flows.training.request import TrainRequest
from storage.datasets.store import DatasetStore


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A request whose dataset, recipe, weights and cluster fit together."""

    request: TrainRequest
    store: DatasetStore

    @cached_property
    def recipe(self) -> Recipe:
        """With all changes."""
        return self.request.effective

    @cached_property
    def directory(self) -> TrainingDirectory:
        return TrainingDirectory(self.request.output)

    @property
    def name(self) -> str:
        """The bundle's."""
        return self.request.name or self.directory.path.resolve().name

    @cached_property
    def backbone_sha256(self) -> str | None:
        """SHA-256 of the weights that the backbone starts from; None: random ones."""
        weights = self.request.backbone_weights
        return None if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training came to.

    Attributes:
        progress: where it ended.
        trained: its bundle without card, and what validation said of it.
        test: scores on the test split; None = the dataset has none.
    """

    job: TrainingJob
    progress: Progress
    trained: TrainedBundle
    test: Score | None

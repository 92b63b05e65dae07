"""A training that may begin, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dasnet.networks.encoders.start_weights import StartWeights, start_weights
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
    def start(self) -> StartWeights | None:
        """The weights that the encoder starts from; None: random ones.

        Raises:
            TrainingError: there are none of that name.
        """
        weights, backbone = self.request.weights, self.recipe.backbone
        return None if weights is None or backbone is None else start_weights(weights, backbone)


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

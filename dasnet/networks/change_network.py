"""What predictor, training and bundles ask of every network, and nothing about how one is made.

Legend of shapes: B images, C bands, (H, W) pixels, (h, w) positions of the distance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn


class ChangeNetwork(nn.Module, ABC):
    """A network that looks at each date once, and then at pairs of dates.

    What it keeps of a date is its own matter: an embedding, the features of several resolutions, or the image itself.
    """

    parts: ClassVar[tuple[str, ...]]
    """What the outputs are called in the history of a training, one name each."""

    needs_float32: ClassVar[bool] = False
    """Whether narrower arithmetic would take its distances' digits."""

    leaves_weights_alone: ClassVar[bool] = False
    """Whether a step of training may leave some weights without a gradient."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Pixels between two positions of the distance."""

    def begin_step(self, step: int, steps: int) -> None:
        """Told before each step of training its number, from 0, and how many there are in all."""

    @property
    def prepared(self) -> bool:
        """Whether training has come to where the distance means something; before, no epoch can be the best."""
        return True

    @abstractmethod
    def features(self, images: Tensor) -> Any:
        """What :meth:`distance` needs of one date: (B, C, H, W), normalised as the bundle says, to tensors of B."""

    @abstractmethod
    def distance(self, before: Any, after: Any) -> Tensor:
        """How much two dates differ, from their features: (B, h, w) float32 in [0, 2], larger = more changed.

        Which of two dates is the first may matter; every network says so.
        """

    @abstractmethod
    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the loss is taken of: (2b, C, H, W), the first b those of the first date, to tensors of b pairs.

        Both dates go through in one batch, so that normalisation cannot take out what tells the dates apart.
        """

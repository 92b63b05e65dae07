"""Recipes: everything that training depends on beside the data, as one checked object; the usual ones have names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from dasnet.networks.architectures import DISTANCE_LOSSES, PEERS, SEGMENTATION_LOSSES, Method
from dasnet.training.augmentation import Augmentation
from dasnet.training.class_frequency import ClassFrequency
from dasnet.training.settings import (
    AnyLoss,
    AnyNetwork,
    DasnetSettings,
    LossSettings,
    MarginSettings,
    NetworkSettings,
    OptimizerSettings,
    PeerSettings,
    SamplingSettings,
    Section,
    WdmcSettings,
    require_margins,
)
from dasnet.training.usual_recipes import USUAL, RecipeName

if TYPE_CHECKING:
    from dasnet.training.losses import Loss

_LOSSES: dict[str, type[LossSettings]] = {kind.model_fields["loss"].default: kind for kind in get_args(AnyLoss)}
_EXPONENTIAL = 0.95
_ADDED_LATER = {
    "unchanged_weight": 1.0,
    "cross_entropy": 0.0,
    "update_rule": "adam",
    "encoder_rate": 1.0,
    "frozen": 0.0,
    "encoder_statistics": "batch",
    "adapters": 0,
}
"""Settings that recipes had not always, with the value that changes nothing."""
_AUGMENTATION = 2
"""Version of augmentation: the second augments whole batches where the network is, by numbers drawn in another order.
Crops and flips are those of the first."""


class Recipe(Section):
    """How a network is trained. The defaults are the paper's."""

    name: Annotated[str, Field(description="Name of the recipe, for people.")] = "custom"
    network: Annotated[AnyNetwork, Field(discriminator="method")] = DasnetSettings()
    loss: Annotated[AnyLoss, Field(discriminator="loss")] = WdmcSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    sampling: SamplingSettings = SamplingSettings()
    normalisation: Annotated[
        Literal["dataset", "imagenet", "encoder"],
        Field(
            description="How bands are normalised: by the training split; as weights of ImageNet want it; or encoder: "
            "as the encoder's weights want it where the images are red, green and blue of 8 bits, else by the split."
        ),
    ] = "dataset"
    augmentation: Augmentation = Augmentation()
    seed: Annotated[int, Field(ge=0, description="Seed of weights, order, augmentation and dropout.")] = 0

    @classmethod
    def of(cls, **settings: Any) -> Recipe:
        """The recipe of single settings by their names in :data:`SETTINGS`; those left out are the paper's.

        Raises:
            ValueError: a setting that network or loss has no use for, or values that do not fit together.
        """
        method, loss = settings.get("method", "dasnet"), settings.get("loss", "wdmc")
        _require_loss_of(method, loss)
        sections: dict[str, type[Section]] = {
            "network": DasnetSettings if method == "dasnet" else PeerSettings,
            "loss": _LOSSES[loss],
            "optimizer": OptimizerSettings,
            "sampling": SamplingSettings,
        }
        useful = {name for section in sections.values() for name in section.model_fields}
        idle = [name for name in _IN_SECTIONS if name in settings and name not in useful]
        if foreign := [name for name in idle if settings[name] != _IN_SECTIONS[name].default]:
            raise ValueError(
                f"method {method} trained by {loss} has no {', '.join(foreign)}: leave that out, or start "
                f"from the method's recipe, {recipe_of_method(method)}"
            )
        parts: dict[str, Any] = {
            name: section(**{key: settings[key] for key in section.model_fields if key in settings})
            for name, section in sections.items()
        }
        return cls(**parts, **{name: value for name, value in settings.items() if name not in _IN_SECTIONS})

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        _require_loss_of(self.network.method, self.loss.loss)
        _require_loss_of_distance(self.network, self.loss.loss)
        if isinstance(self.loss, MarginSettings):
            require_margins(*self.loss.margins, supervision=self.network.supervision)
        return self

    @property
    def backbone(self) -> str | None:
        """The encoder that weights can be loaded into; None: the network has none."""
        if isinstance(self.network, DasnetSettings):
            return self.network.backbone
        peer = PEERS[self.network.method]
        return peer.encoder if self.network.width in (None, peer.default_width) else None

    @property
    def adapters(self) -> int:
        """Rank of the adapters of the encoder's attention; 0: it has none."""
        return self.network.adapters if isinstance(self.network, DasnetSettings) else 0

    def settings(self) -> dict[str, Any]:
        """What network and loss make use of, by name, ready for JSON."""
        facts = self.model_dump(mode="json")
        for section in ("network", "loss", "optimizer", "sampling"):
            facts |= facts.pop(section)
        return {name: facts[name] for name in SETTINGS if name in facts}

    def identity(self) -> dict[str, Any]:
        """All that a training depends on beside the data, ready for JSON: equal identities promise equal weights.

        What was added later is left out where it changes nothing, so that a training begun before goes on; for the same
        reason what the network or the loss has no use for is there, as it always was.
        """
        facts = {name: to_jsonable_python(field.default) for name, field in _IN_SECTIONS.items()} | self.settings()
        for name, nothing in _ADDED_LATER.items():
            if facts[name] == nothing:
                del facts[name]
        idle = self.augmentation.idle
        facts["augmentation"] = {name: value for name, value in facts["augmentation"].items() if name not in idle}
        if self.augmentation.interpolates:
            facts["augmentation_version"] = _AUGMENTATION
        if isinstance(self.network, PeerSettings) and (version := PEERS[self.network.method].version) > 1:
            facts["version"] = version
        return facts

    def loss_of(self, frequency: ClassFrequency) -> Loss:
        """The loss for a training split of that frequency.

        Raises:
            ValueError: the split has one class alone, and its weights are asked for.
        """
        from dasnet.training.losses import build_loss

        return build_loss(self.loss, self.network, frequency)

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of a step (from 0) of so many: a function of the step alone, so that resuming keeps it."""
        rate, schedule = self.optimizer.rate, self.optimizer.schedule
        rising = round(self.optimizer.warmup * steps)
        if step < rising:
            return rate * (step + 1) / rising
        done = (step - rising) / max(steps - rising, 1)
        if schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * done))
        if schedule == "exponential":
            return rate * _EXPONENTIAL ** (self.sampling.epochs * done)
        if schedule == "linear":
            return rate * (1 - done)
        return rate * (1 - done) ** 0.9 if schedule == "poly" else rate


def _require_loss_of(method: str, loss: str) -> None:
    """Raise ValueError if a method is not trained by a loss."""
    losses = (*DISTANCE_LOSSES, *SEGMENTATION_LOSSES) if method == "dasnet" else PEERS[method].losses
    if loss not in losses:
        raise ValueError(
            f"method {method} is trained by {' or '.join(losses)}, not by {loss}: start from its recipe, "
            f"{recipe_of_method(method)}"
        )


def _require_loss_of_distance(network: AnyNetwork, loss: str) -> None:
    """Raise ValueError if DASNet's distance is not trained by a loss."""
    if not isinstance(network, DasnetSettings):
        return
    losses = SEGMENTATION_LOSSES if network.distance == "learned" else DISTANCE_LOSSES
    if loss not in losses:
        raise ValueError(f"distance {network.distance} is trained by {' or '.join(losses)}, not by {loss}")


# where several sections have a setting, the section that they are made from describes it
_SECTIONS: list[type[Section]] = [DasnetSettings, PeerSettings, NetworkSettings, MarginSettings, *_LOSSES.values()]
_SECTIONS += [LossSettings, OptimizerSettings, SamplingSettings]
_IN_SECTIONS: dict[str, FieldInfo] = {
    name: field for section in _SECTIONS for name, field in section.model_fields.items()
}
_ORDER = (
    "name method width backbone attention distance head_channels decoder adapters dropout "
    "loss margin_unchanged margin_changed cross_entropy supervision class_weights unchanged_weight "
    "update_rule rate encoder_rate frozen encoder_statistics weight_decay schedule warmup batch accumulate epochs "
    "samples_per_epoch balance clip ema patience precision compile normalisation augmentation seed"
)
SETTINGS: dict[str, FieldInfo] = {name: (Recipe.model_fields | _IN_SECTIONS)[name] for name in _ORDER.split()}
"""All that a recipe can be told, by the names that users know, in the order in which it is shown."""


def recipe_named(name: RecipeName, **changes: Any) -> Recipe:
    """A recipe by its name, with changes of single settings; raises ValueError as :meth:`Recipe.of`.

    With another loss than the recipe's, what the recipe says of its own loss alone is left out.
    """
    usual = dict(USUAL[name])
    if (loss := changes.get("loss")) in _LOSSES:
        useful = _LOSSES[loss].model_fields
        own = _LOSSES[usual.get("loss", "wdmc")].model_fields
        usual = {setting: value for setting, value in usual.items() if setting not in own or setting in useful}
    return Recipe.of(**{"name": name, **usual, **changes})


def recipe_of_method(method: str) -> RecipeName:
    """The name of a method's usual recipe.

    Raises:
        ValueError: no such method.
    """
    for name in ("cpu_small", *get_args(RecipeName)):
        if USUAL[name].get("method", "dasnet") == method:
            return name
    raise ValueError(f"no method that is trained is called {method!r}: there are {', '.join(get_args(Method))}")


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What training needs to know of a dataset beside its samples.

    Attributes:
        bands: (name, mean, standard deviation) over the training split.
        scaling: (scale, offset) of each band as the imagery declares it, None for what it does not; empty = nothing.
        dtype: type of the images.
        window: side of a sample, pixels.
        frequency: how often each class is in the training split.
        digest: the dataset's SHA-256.
        resolution: ground size of a pixel, metres; None = not known.
    """

    bands: tuple[tuple[str, float, float], ...]
    scaling: tuple[tuple[float | None, float | None], ...] = ()
    dtype: str
    window: int
    frequency: ClassFrequency
    digest: str
    resolution: float | None = None

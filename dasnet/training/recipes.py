"""Recipes: everything that training depends on beside the data, as one checked object; the usual ones have names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dasnet.networks.architectures import (
    PEERS,
    AnyArchitecture,
    Architecture,
    Attention,
    BackboneName,
    Decoder,
    Distance,
    Method,
    PeerArchitecture,
)
from dasnet.training.augmentation import PSEUDO_CHANGES, Augmentation
from dasnet.training.class_frequency import ClassFrequency
from dasnet.training.margins import require_margins

if TYPE_CHECKING:
    from dasnet.training.losses import Loss

LossName = Literal["wdmc", "contrastive", "cross-entropy", "coupling"]

_DASNET_ALONE = ("backbone", "attention", "distance", "head_channels", "decoder", "supervision")
_DISTANCES_ALONE = ("margin_unchanged", "margin_changed")
_EXPONENTIAL = 0.95


class Recipe(BaseModel):
    """How a network is trained. The defaults are the paper's.

    A global batch is spread over ranks and over accumulated passes; its gradient is that of the mean over all of its
    labelled pixels, however it is spread.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(description="Of the recipe, for people.")] = "custom"
    method: Annotated[Method, Field(description="Which network.")] = "dasnet"
    width: Annotated[
        int | None,
        Field(ge=1, description="Channels at full resolution of a network other than DASNet; empty: the paper's."),
    ] = None
    backbone: Annotated[BackboneName, Field(description="Encoder.")] = "resnet50"
    attention: Annotated[Attention, Field(description="Which attention the two branches have.")] = "both"
    distance: Annotated[Distance, Field(description="Between two embeddings.")] = "l2"
    head_channels: Annotated[int | None, Field(description="Channels of the embeddings; empty: the backbone's.")] = None
    decoder: Annotated[
        Decoder, Field(description="none, as in the paper; or embeddings at half, or full, resolution.")
    ] = "none"
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Share that dropout drops in training, wherever the network has it.")
    ] = 0.1

    loss: Annotated[
        LossName,
        Field(description="Weighted double margin, one margin, cross-entropy of a segmentation, or SCCN's own."),
    ] = "wdmc"
    margin_unchanged: Annotated[float, Field(ge=0, description="m1.")] = 0.3
    margin_changed: Annotated[float, Field(gt=0, description="m2.")] = 2.2
    supervision: Annotated[
        tuple[float, float, float], Field(description="λ of the spatial, channel and fused distances.")
    ] = (1.0, 1.0, 1.0)
    class_weights: Annotated[
        Literal["normalised", "frequency", "none"],
        Field(description="Of the loss: 1/P scaled to add up to 2; 1/P as printed in eq. (7), (8); or 1 and 1."),
    ] = "normalised"
    unchanged_weight: Annotated[
        float, Field(gt=0, description="Times the weight of unchanged pixels that class_weights gives.")
    ] = 1.0

    rate: Annotated[float, Field(gt=0, description="Highest learning rate of Adam.")] = 1e-4
    weight_decay: Annotated[float, Field(ge=0, description="L2 penalty, as in the authors' Adam.")] = 0.0
    schedule: Annotated[
        Literal["constant", "cosine", "poly", "exponential"],
        Field(description="How the learning rate falls, step by step; exponential: by 5 % an epoch."),
    ] = "constant"
    warmup: Annotated[float, Field(ge=0, lt=1, description="Share of all steps in which the rate rises.")] = 0.0
    batch: Annotated[int, Field(ge=1, description="Pairs in one optimizer step, over all ranks.")] = 8
    accumulate: Annotated[int, Field(ge=1, description="Passes that one optimizer step is made of.")] = 1
    epochs: Annotated[int, Field(ge=1, description="At most.")] = 60
    samples_per_epoch: Annotated[int | None, Field(ge=1, description="Empty: each training sample once.")] = None
    balance: Annotated[
        float,
        Field(ge=0, le=1, description="Share of samples drawn from those with a change in them; 0: as they come."),
    ] = 0.0
    clip: Annotated[float, Field(ge=0, description="Largest norm of the gradient; 0: no limit.")] = 0.0
    ema: Annotated[
        float, Field(ge=0, lt=1, description="Decay of the averaged weights, in the first steps less; 0: none.")
    ] = 0.0
    patience: Annotated[
        int, Field(ge=0, description="Epochs without a better validation F1 before stopping; 0: never.")
    ] = 0
    precision: Annotated[Literal["float32", "bfloat16"], Field(description="Of forward and backward pass.")] = "float32"
    compile: Annotated[bool, Field(description="torch.compile the network.")] = False
    normalisation: Annotated[
        Literal["dataset", "imagenet"],
        Field(description="Of the bands: by the training split, or as ImageNet's weights want."),
    ] = "dataset"
    augmentation: Augmentation = Augmentation()
    seed: Annotated[int, Field(ge=0, description="Of weights, order, augmentation and dropout.")] = 0

    @model_validator(mode="after")
    def _checked(self) -> Recipe:
        if self.batch % self.accumulate:
            raise ValueError(f"a batch of {self.batch} cannot be made of {self.accumulate} equal passes")
        losses = ("wdmc", "contrastive") if self.method == "dasnet" else PEERS[self.method].losses
        if self.loss not in losses:
            raise ValueError(
                f"method {self.method} is trained by {' or '.join(losses)}, not by {self.loss}: start from its recipe, "
                f"{recipe_of_method(self.method)}"
            )
        fields = type(self).model_fields
        foreign = [name for name in self._without_meaning() if getattr(self, name) != fields[name].default]
        if foreign:
            raise ValueError(
                f"method {self.method} trained by {self.loss} has no {', '.join(foreign)}: leave that out, or start "
                f"from the method's recipe, {recipe_of_method(self.method)}"
            )
        unchanged = 0.0 if self.loss == "contrastive" else self.margin_unchanged
        require_margins(unchanged, self.margin_changed, supervision=self.supervision)
        return self

    def _without_meaning(self) -> list[str]:
        """Fields that method and loss have no use for."""
        names = ("width",) if self.method == "dasnet" else _DASNET_ALONE
        weighted = self.loss in ("wdmc", "cross-entropy")
        without_weights = () if weighted else ("unchanged_weight",)
        return [*names, *(() if self.loss in ("wdmc", "contrastive") else _DISTANCES_ALONE), *without_weights]

    def settings(self) -> dict[str, Any]:
        """What method and loss make use of, by name, ready for JSON."""
        return self.model_dump(mode="json", exclude=set(self._without_meaning()))

    def identity(self) -> dict[str, Any]:
        """All that a training depends on beside the data, ready for JSON: equal identities promise equal weights.

        What was added later is left out where it changes nothing, so that a training begun before goes on.
        """
        facts = self.model_dump(mode="json")
        if self.unchanged_weight == 1.0:
            del facts["unchanged_weight"]
        if self.method != "dasnet" and (version := PEERS[self.method].version) > 1:
            facts["version"] = version
        return facts

    def steps_of_epoch(self, samples: int) -> int:
        """Optimizer steps of an epoch over so many samples; at least one, and only whole batches."""
        return max((self.samples_per_epoch or samples) // self.batch, 1)

    def most_ranks(self, workers: int) -> int:
        """The most ranks, one a worker, over which each pass of a batch can be spread evenly."""
        pairs = self.batch // self.accumulate
        return next(count for count in range(min(workers, pairs), 0, -1) if pairs % count == 0)

    def architecture(self, in_bands: int) -> AnyArchitecture:
        """The network for images of `in_bands` bands."""
        if self.method != "dasnet":
            width = self.width or PEERS[self.method].default_width
            return PeerArchitecture(method=self.method, in_bands=in_bands, width=width)
        return Architecture(
            backbone=self.backbone,
            in_bands=in_bands,
            attention=self.attention,
            distance=self.distance,
            head_channels=self.head_channels,
            decoder=self.decoder,
        )

    def loss_of(self, frequency: ClassFrequency) -> Loss:
        """The loss for a training split of that frequency.

        Raises:
            ValueError: the split has one class alone, and its weights are asked for.
        """
        from dasnet.training.losses import CrossEntropyLoss, DoubleMarginLoss, MeanCost

        if self.loss == "coupling":
            return MeanCost()
        strides = self.architecture(1).strides
        supervision = self.supervision if self.method == "dasnet" else (1.0,)
        if self.loss == "contrastive":
            return DoubleMarginLoss(
                margin_unchanged=0.0,
                margin_changed=self.margin_changed,
                supervision=supervision,
                strides=strides,
            )
        w1, w2 = {
            "normalised": lambda: frequency.normalised_weights,
            "frequency": lambda: frequency.weights,
            "none": lambda: (1.0, 1.0),
        }[self.class_weights]()
        w1 *= self.unchanged_weight
        if self.loss == "cross-entropy":
            return CrossEntropyLoss(weight_unchanged=w1, weight_changed=w2)
        return DoubleMarginLoss(
            margin_unchanged=self.margin_unchanged,
            margin_changed=self.margin_changed,
            weight_unchanged=w1,
            weight_changed=w2,
            supervision=supervision,
            strides=strides,
        )

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of a step (from 0) of so many: a function of the step alone, so that resuming keeps it."""
        rising = round(self.warmup * steps)
        if step < rising:
            return self.rate * (step + 1) / rising
        done = (step - rising) / max(steps - rising, 1)
        if self.schedule == "cosine":
            return self.rate * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "exponential":
            return self.rate * _EXPONENTIAL ** (self.epochs * done)
        return self.rate * (1 - done) ** 0.9 if self.schedule == "poly" else self.rate


def paper_cdd(**changes: Any) -> Recipe:
    """The paper's training on CDD: ResNet50, WDMC, Adam 1e-4, batch 8; flips and rotations alone."""
    return Recipe(**{"name": "paper_cdd", **changes})


def paper_bcdd(**changes: Any) -> Recipe:
    """The same on BCDD (WHU), with the weight decay and falling rate of the authors' code."""
    return Recipe(**{"name": "paper_bcdd", "weight_decay": 5e-5, "schedule": "poly", **changes})


def cpu_small(**changes: Any) -> Recipe:
    """For machines without a GPU: a light backbone, small crops, a higher rate that falls, pseudo-changes drawn."""
    return Recipe(
        **{
            "name": "cpu_small",
            "backbone": "mobilenet_v3",
            "head_channels": 96,
            "rate": 2e-3,
            "schedule": "cosine",
            "warmup": 0.1,
            "clip": 5.0,
            "epochs": 20,
            "balance": 0.7,
            "augmentation": replace(PSEUDO_CHANGES, crop=128),
            **changes,
        }
    )


def fc_ef(**changes: Any) -> Recipe:
    """FC-EF as its authors train: Adam 1e-3 with weight decay, the rate falling by 5 % an epoch, batch 32 of 96 px,
    classes weighed by 1/P but unchanged pixels ten times as much as that (their FP_MODIFIER)."""
    return Recipe(**{"name": "fc_ef", "method": "fc-ef", **_DAUDT, **changes})


def fc_siam_conc(**changes: Any) -> Recipe:
    """FC-Siam-conc, trained as FC-EF."""
    return Recipe(**{"name": "fc_siam_conc", "method": "fc-siam-conc", **_DAUDT, **changes})


def fc_siam_diff(**changes: Any) -> Recipe:
    """FC-Siam-diff, trained as FC-EF."""
    return Recipe(**{"name": "fc_siam_diff", "method": "fc-siam-diff", **_DAUDT, **changes})


def cdnet(**changes: Any) -> Recipe:
    """CDnet by its weighted cross-entropy; the rest as the DASNet paper trains: Adam 1e-4, batch 8, 60 epochs."""
    return Recipe(**{"name": "cdnet", "method": "cdnet", "loss": "cross-entropy", "dropout": 0.0, **changes})


def bidatenet(**changes: Any) -> Recipe:
    """BiDateNet as its authors train: Adam 1e-4, batch 32 of 32 px, 60 epochs, dropout of 0.7 behind every LSTM,
    changed pixels weighed four times as much as unchanged ones."""
    usual = {"loss": "cross-entropy", "dropout": 0.7, "batch": 32, "augmentation": Augmentation(crop=32)}
    weights = {"class_weights": "none", "unchanged_weight": 0.25}
    return Recipe(**{"name": "bidatenet", "method": "bidatenet", **usual, **weights, **changes})


def dscn(**changes: Any) -> Recipe:
    """DSCN by a contrastive loss weighted by class, which is WDMC with m1 = 0; the rest as the DASNet paper trains."""
    usual = {"loss": "wdmc", "margin_unchanged": 0.0, "margin_changed": 2.0, "dropout": 0.0}
    return Recipe(**{"name": "dscn", "method": "dscn", **usual, **changes})


def sccn(**changes: Any) -> Recipe:
    """SCCN, without labels: autoencoders for a third of training, then coupling; Adam 1e-3."""
    usual = {"loss": "coupling", "rate": 1e-3, "clip": 1.0, "class_weights": "none"}
    return Recipe(**{"name": "sccn", "method": "sccn", **usual, **changes})


_DAUDT: dict[str, Any] = {
    "loss": "cross-entropy",
    "unchanged_weight": 10.0,
    "dropout": 0.2,
    "rate": 1e-3,
    "weight_decay": 1e-4,
    "schedule": "exponential",
    "batch": 32,
    "epochs": 50,
    "augmentation": Augmentation(crop=96),
}

RecipeName = Literal[
    "paper_cdd",
    "paper_bcdd",
    "cpu_small",
    "fc_ef",
    "fc_siam_conc",
    "fc_siam_diff",
    "cdnet",
    "bidatenet",
    "dscn",
    "sccn",
]
RECIPES: dict[RecipeName, Callable[..., Recipe]] = {
    "paper_cdd": paper_cdd,
    "paper_bcdd": paper_bcdd,
    "cpu_small": cpu_small,
    "fc_ef": fc_ef,
    "fc_siam_conc": fc_siam_conc,
    "fc_siam_diff": fc_siam_diff,
    "cdnet": cdnet,
    "bidatenet": bidatenet,
    "dscn": dscn,
    "sccn": sccn,
}


def recipe_of_method(method: str) -> RecipeName:
    """The name of a method's usual recipe.

    Raises:
        ValueError: no such method.
    """
    for name in ("cpu_small", *RECIPES):
        if RECIPES[name]().method == method:
            return name
    raise ValueError(f"no method that is trained is called {method!r}: there are {', '.join(get_args(Method))}")


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What training needs to know of a dataset beside its samples.

    Attributes:
        bands: (name, mean, standard deviation) over the training split.
        dtype: of the images.
        window: side of a sample, pixels.
        frequency: of the classes in the training split.
        digest: of the dataset.
        resolution: ground size of a pixel, metres; None = not known.
    """

    bands: tuple[tuple[str, float, float], ...]
    dtype: str
    window: int
    frequency: ClassFrequency
    digest: str
    resolution: float | None = None

"""What a training can be told, in sections: a network's and a loss's have what is of use to it, and nothing else."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dasnet.networks.architectures import (
    PEERS,
    Architecture,
    Attention,
    Decoder,
    Distance,
    Method,
    PeerArchitecture,
    PeerMethod,
    require_backbone,
)
from dasnet.training.class_frequency import ClassFrequency

LossName = Literal["wdmc", "contrastive", "cross-entropy", "dice", "coupling"]


class Section(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSettings(Section):
    """Which network, and what all of them have."""

    method: Annotated[Method, Field(description="Which network.")] = "dasnet"
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Share that dropout drops in training, wherever the network has it.")
    ] = 0.1


class DasnetSettings(NetworkSettings):
    """DASNet."""

    method: Literal["dasnet"] = "dasnet"
    backbone: Annotated[
        str,
        AfterValidator(require_backbone),
        Field(description="Encoder: resnet50, vgg16, mobilenet_v3, or timm:NAME for any of timm's."),
    ] = "resnet50"
    attention: Annotated[Attention, Field(description="Which attention the two branches have.")] = "both"
    distance: Annotated[Distance, Field(description="Between two embeddings.")] = "l2"
    head_channels: Annotated[int | None, Field(description="Channels of the embeddings; empty: the backbone's.")] = None
    decoder: Annotated[
        Decoder, Field(description="none, as in the paper; or embeddings at half, or full, resolution.")
    ] = "none"
    adapters: Annotated[
        int,
        Field(
            ge=0, description="Rank of the adapters that alone are trained of a transformer; 0: all of it is trained."
        ),
    ] = 0
    supervision: Annotated[
        tuple[float, float, float], Field(description="λ of the spatial, channel and fused distances.")
    ] = (1.0, 1.0, 1.0)

    def architecture(self, in_bands: int) -> Architecture:
        """The network for images of `in_bands` bands."""
        return Architecture(
            in_bands=in_bands, **self.model_dump(exclude={"method", "dropout", "adapters", "supervision"})
        )


class PeerSettings(NetworkSettings):
    """A network that DASNet is compared with."""

    method: PeerMethod
    width: Annotated[
        int | None,
        Field(ge=1, description="Channels at full resolution of a network other than DASNet; empty: the paper's."),
    ] = None

    @property
    def supervision(self) -> tuple[float, ...]:
        """λ of its only distance."""
        return (1.0,)

    def architecture(self, in_bands: int) -> PeerArchitecture:
        """The network for images of `in_bands` bands."""
        width = self.width or PEERS[self.method].default_width
        return PeerArchitecture(method=self.method, in_bands=in_bands, width=width)


AnyNetwork = DasnetSettings | PeerSettings


class LossSettings(Section):
    """Which loss, and what all of them take, so that one setting can stand for all methods of a comparison."""

    loss: Annotated[
        LossName,
        Field(
            description="Weighted double margin, one margin, cross-entropy or Dice of a segmentation, or SCCN's own."
        ),
    ] = "wdmc"
    class_weights: Annotated[
        Literal["normalised", "frequency", "none"],
        Field(description="Weights of WDMC and cross-entropy: 1/P scaled to add up to 2; 1/P as in eq. (7), (8); 1."),
    ] = "normalised"


def require_margins(unchanged: float, changed: float, *, supervision: tuple[float, ...]) -> None:
    """Refuse m1, m2 and λ of each distance of which no loss can be made, with ValueError."""
    if not all(math.isfinite(number) and number >= 0 for number in (unchanged, changed, *supervision)):
        raise ValueError(f"margins and λ must be finite and not negative, not {unchanged}, {changed} and {supervision}")
    if unchanged >= changed:
        raise ValueError(f"the margin of unchanged pairs, {unchanged}, must lie below that of changed pairs, {changed}")
    if len(supervision) not in (1, 3) or not any(supervision):
        raise ValueError(f"λ are three numbers or one, one of them positive, not {supervision}")


class WeightedSettings(LossSettings):
    """A loss with a weight for each class."""

    unchanged_weight: Annotated[
        float, Field(gt=0, description="Times the weight of unchanged pixels that class_weights gives.")
    ] = 1.0

    def weights(self, frequency: ClassFrequency) -> tuple[float, float]:
        """Weights of unchanged and of changed pixels.

        Raises:
            ValueError: the split has one class alone, and its weights are asked for.
        """
        if self.class_weights == "none":
            return self.unchanged_weight, 1.0
        is_normalised = self.class_weights == "normalised"
        unchanged, changed = frequency.normalised_weights if is_normalised else frequency.weights
        return unchanged * self.unchanged_weight, changed


class MarginSettings(LossSettings):
    """A loss of distances."""

    margin_unchanged: Annotated[float, Field(ge=0, description="m1 of WDMC; the contrastive loss takes 0.")] = 0.3
    margin_changed: Annotated[float, Field(gt=0, description="m2.")] = 2.2

    @property
    def margins(self) -> tuple[float, float]:
        """m1 and m2, as the loss takes them."""
        return self.margin_unchanged if self.loss == "wdmc" else 0.0, self.margin_changed


class WdmcSettings(MarginSettings, WeightedSettings):
    """The weighted double-margin contrastive loss."""

    loss: Literal["wdmc"] = "wdmc"


class ContrastiveSettings(MarginSettings):
    """The contrastive loss: one margin, and no weights."""

    loss: Literal["contrastive"] = "contrastive"


class CrossEntropySettings(WeightedSettings):
    """The cross-entropy of a segmentation."""

    loss: Literal["cross-entropy"] = "cross-entropy"


class DiceSettings(LossSettings):
    """The Dice loss of a segmentation, alone or beside the cross-entropy."""

    loss: Literal["dice"] = "dice"
    cross_entropy: Annotated[
        float, Field(ge=0, description="Weight of the cross-entropy beside the Dice loss; 0: that alone.")
    ] = 0.0


class CouplingSettings(LossSettings):
    """SCCN's own loss, which looks at no label."""

    loss: Literal["coupling"] = "coupling"


AnyLoss = WdmcSettings | ContrastiveSettings | CrossEntropySettings | DiceSettings | CouplingSettings


class OptimizerSettings(Section):
    """How one step is taken."""

    update_rule: Annotated[
        Literal["adam", "adamw", "sgd"],
        Field(description="How a gradient becomes a step: Adam, AdamW, or SGD with a momentum of 0.9."),
    ] = "adam"
    rate: Annotated[float, Field(gt=0, description="Highest learning rate.")] = 1e-4
    weight_decay: Annotated[
        float, Field(ge=0, description="L2 penalty, as in the authors' Adam; of AdamW apart from the gradient.")
    ] = 0.0
    encoder_rate: Annotated[
        float, Field(ge=0, description="Rate of an encoder that starts from weights, as a factor of the rate.")
    ] = 1.0
    frozen: Annotated[
        float,
        Field(ge=0, le=1, description="Share of all steps in which an encoder that starts from weights is still."),
    ] = 0.0
    encoder_statistics: Annotated[
        Literal["batch", "kept"],
        Field(
            description="BatchNorm of an encoder that starts from weights: by the batch, or as the weights bring it."
        ),
    ] = "batch"
    schedule: Annotated[
        Literal["constant", "cosine", "poly", "exponential", "linear"],
        Field(description="How the learning rate falls, step by step; exponential: by 5 % an epoch."),
    ] = "constant"
    warmup: Annotated[float, Field(ge=0, lt=1, description="Share of all steps in which the rate rises.")] = 0.0
    clip: Annotated[float, Field(ge=0, description="Largest norm of the gradient; 0: no limit.")] = 0.0
    ema: Annotated[
        float, Field(ge=0, lt=1, description="Decay of the averaged weights, in the first steps less; 0: none.")
    ] = 0.0
    precision: Annotated[
        Literal["float32", "bfloat16"], Field(description="Arithmetic of forward and backward pass.")
    ] = "float32"
    compile: Annotated[bool, Field(description="torch.compile the network.")] = False


class SamplingSettings(Section):
    """How many steps there are, and of which samples they are made.

    A global batch is spread over ranks and over accumulated passes; its gradient is that of the mean over all of its
    labelled pixels, however it is spread.
    """

    batch: Annotated[int, Field(ge=1, description="Pairs in one optimizer step, over all ranks.")] = 8
    accumulate: Annotated[int, Field(ge=1, description="Passes that one optimizer step is made of.")] = 1
    epochs: Annotated[int, Field(ge=1, description="At most.")] = 60
    samples_per_epoch: Annotated[int | None, Field(ge=1, description="Empty: each training sample once.")] = None
    balance: Annotated[
        float,
        Field(ge=0, le=1, description="Share of samples drawn from those with a change in them; 0: as they come."),
    ] = 0.0
    patience: Annotated[
        int, Field(ge=0, description="Epochs without a better validation F1 before stopping; 0: never.")
    ] = 0

    @model_validator(mode="after")
    def _equal_passes(self) -> SamplingSettings:
        if self.batch % self.accumulate:
            raise ValueError(f"a batch of {self.batch} cannot be made of {self.accumulate} equal passes")
        return self

    @property
    def micro_batch(self) -> int:
        """Pairs in one pass, over all ranks."""
        return self.batch // self.accumulate

    def steps_of_epoch(self, samples: int) -> int:
        """Optimizer steps of an epoch over so many samples; at least one, and only whole batches."""
        return max((self.samples_per_epoch or samples) // self.batch, 1)

    def most_ranks(self, workers: int) -> int:
        """The most ranks, one a worker, over which each pass of a batch can be spread evenly."""
        return next(n for n in range(min(workers, self.micro_batch), 0, -1) if self.micro_batch % n == 0)

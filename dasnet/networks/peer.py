"""What the networks beside DASNet have in common: how they are described, and how a segmentation becomes a distance.

Legend of shapes: B images, C bands, (H, W) pixels; all of these networks answer for every pixel.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor, nn

from dasnet.networks.change_network import ChangeNetwork

PeerMethod = Literal["fc-ef", "fc-siam-conc", "fc-siam-diff", "cdnet", "bidatenet", "dscn", "sccn"]
Features = tuple[Tensor, ...]
"""Of one date, (B, channels, H / 2^n, W / 2^n) for the network's resolutions, finest first."""


@dataclass(frozen=True, kw_only=True)
class PeerArchitecture:
    """Which network beside DASNet: everything that its weights' names and shapes, and what it computes, depend on.

    Attributes:
        method: the network's name.
        in_bands: bands of an image.
        width: channels at full resolution, of which the others are multiples; the paper's unless a smaller network is
            wanted.
    """

    method: PeerMethod
    in_bands: int = 3
    width: int

    def __post_init__(self) -> None:
        if self.method not in get_args(PeerMethod):
            raise ValueError(f"method {self.method!r} is none of dasnet, {', '.join(get_args(PeerMethod))}")
        for name, value in (("in_bands", self.in_bands), ("width", self.width)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value!r}")

    @property
    def stride(self) -> int:
        """Pixels between two positions of the distance."""
        return 1

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between two positions of each distance that a loss is taken of: there is one."""
        return (self.stride,)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PeerArchitecture:
        """What :meth:`to_dict` gave; ValueError for fields that do not belong to these networks or are missing."""
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            raise ValueError(
                f"an architecture of method {values.get('method')!r} has {sorted(expected)}, not {sorted(values)}"
            )
        return cls(**values)


class PeerNetwork(ChangeNetwork):
    """A network beside DASNet.

    Attributes:
        title: the paper's name for it, and the paper.
        default_width: the paper's `PeerArchitecture.width`.
        losses: names of the losses it can be trained with, the paper's first.
    """

    title: ClassVar[str]
    default_width: ClassVar[int]
    losses: ClassVar[tuple[str, ...]]
    version: ClassVar[int] = 1
    """Of what training does with a recipe: one begun with another is not gone on with."""

    def __init__(self, architecture: PeerArchitecture) -> None:
        super().__init__()
        self.architecture = architecture

    @property
    def stride(self) -> int:
        """Pixels between two positions of the distance."""
        return self.architecture.stride

    @abstractmethod
    def features(self, images: Tensor) -> Features:
        """(B, C, H, W) to a tensor of B for each resolution that is kept."""

    def compared(self, features: Features) -> Features:
        """Of both dates' features, tensors of 2b, the first b those of the first date: what :meth:`distance` uses."""
        return features

    def of_both_dates(self, images: Tensor) -> tuple[Features, Features]:
        """Features of the first and of the second date: (2b, C, H, W) to tensors of b."""
        halves = [level.chunk(2) for level in self.features(images)]
        return tuple(first for first, _ in halves), tuple(second for _, second in halves)


class SegmentationNetwork(PeerNetwork):
    """A network that calls every pixel changed or unchanged, by two scores and a softmax.

    The softmax of two scores is the sigmoid of their difference, so that this difference is all that is needed of
    them: trained by the cross-entropy, and as a distance twice its sigmoid, 2 · P(changed).
    """

    losses = ("cross-entropy",)
    parts = ("segmentation",)

    @property
    def deepest(self) -> nn.Module | None:
        """What makes the coarsest features of both dates together; None where the decoder alone joins the dates."""
        return None

    @property
    @abstractmethod
    def last_layer(self) -> nn.Module:
        """What makes the scores, of features of both dates."""

    @abstractmethod
    def scores(self, before: Features, after: Features) -> Tensor:
        """(B, 2, H, W) scores of unchanged and changed."""

    def logit(self, before: Features, after: Features) -> Tensor:
        """(B, H, W) log-odds of changed, in the arithmetic that the network computes in."""
        unchanged, changed = self.scores(before, after).unbind(1)
        return changed - unchanged

    def distance(self, before: Features, after: Features) -> Tensor:
        """Twice the network's probability: (B, H, W) float32 in [0, 2]."""
        return 2 * self.logit(before, after).float().sigmoid()

    def outputs(self, images: Tensor) -> tuple[Tensor]:
        """(2b, C, H, W) to the log-odds (b, H, W)."""
        return (self.logit(*self.of_both_dates(images)),)

"""Which network: descriptions without a weight, so that a bundle is read and a training planned without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from dasnet.networks.every_pixel import EveryPixel
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.networks.precomputed import PrecomputedArchitecture

BackboneName = Literal["resnet50", "vgg16", "mobilenet_v3"]
"""Encoders with a name of their own; all others are ``timm:NAME``."""
Attention = Literal["none", "spatial", "channel", "both"]
Distance = Literal["l2", "cosine", "learned"]
Decoder = Literal["none", "half", "full"]
"""The resolution to which a network decodes, of the image's; none = an eighth, the encoder's own."""
PeerMethod = Literal[
    "fc-ef", "fc-siam-conc", "fc-siam-diff", "cdnet", "bidatenet", "dscn", "sccn", "bit", "tinycd", "changemamba"
]
Method = Literal["dasnet", PeerMethod]

DISTANCE_LOSSES = ("wdmc", "contrastive")
SEGMENTATION_LOSSES = ("cross-entropy", "dice")

STRIDE = 8
"""Pixels of the image between two positions of the last features, in every backbone."""

_DECODED_STRIDES = {"half": 2, "full": 1}
HEAD_CHANNELS: dict[str, int] = {"resnet50": 512, "vgg16": 128, "mobilenet_v3": 64}
"""Channels of branches and embeddings by backbone unless others are asked for; the paper's have a quarter of the
backbone's own."""
_TIMM_HEAD_CHANNELS = 96
_TIMM = "timm:"

QUERY_SHARE = 8
"""Query and key of spatial attention have an eighth of the channels."""
WIDEST_HEAD = 256
"""Channels that one head of spatial attention has at most."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Which network: everything that its weights' names and shapes, and what it computes, depend on.

    Attributes:
        backbone: the encoder; resnet50 and vgg16 are the paper's, mobilenet_v3 is for machines without a GPU, and
            ``timm:NAME`` is any network of the library timm that gives features.
        in_bands: bands of an image.
        attention: which attention the two branches have. Without one a branch keeps its convolutions, so that two
            architectures differ by the attention alone; "none" is the paper's Siam-Conv.
        distance: between two embeddings: "l2", or "cosine" (1 − cos); both in [0, 2]. "learned": twice the probability
            that a 1×1 convolution makes of the absolute difference of the two dates' features, which then have no unit
            length; trained as a segmentation.
        head_channels: channels of branches and embeddings, a multiple of 8 up to 256 or of 256 up to 2048; None = the
            backbone's default, which for the paper's two is a quarter of the backbone's channels.
        decoder: "none", as in the paper, or the resolution of the fused embedding: "half" of the image's, with half
            as many channels, or "full", with a quarter of them (:mod:`dasnet.networks.decoder`).
    """

    backbone: str
    in_bands: int = 3
    attention: Attention = "both"
    distance: Distance = "l2"
    head_channels: int | None = None
    decoder: Decoder = "none"

    def __post_init__(self) -> None:
        require_backbone(self.backbone)
        for name, value, choices in (
            ("attention", self.attention, get_args(Attention)),
            ("distance", self.distance, get_args(Distance)),
            ("decoder", self.decoder, get_args(Decoder)),
        ):
            if value not in choices:
                raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")
        if type(self.in_bands) is not int or self.in_bands < 1:
            raise ValueError(f"in_bands must be 1 or more, not {self.in_bands!r}")
        if self.head_channels is None:
            object.__setattr__(self, "head_channels", HEAD_CHANNELS.get(self.backbone, _TIMM_HEAD_CHANNELS))
        if type(self.head_channels) is not int or not _fits_attention(self.head_channels):
            raise ValueError(
                f"head_channels must be a multiple of 8 up to 256, or of 256 up to 2048, not {self.head_channels!r}"
            )

    @property
    def stride(self) -> int:
        """Pixels between two positions of the fused embedding, which is what a prediction is made of."""
        return self.strides[-1]

    @property
    def strides(self) -> tuple[int, int, int]:
        """Pixels between two positions of the spatial, the channel and the fused embedding."""
        return (STRIDE, STRIDE, _DECODED_STRIDES.get(self.decoder, STRIDE))

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Architecture:
        """What :meth:`to_dict` gave; ValueError for fields this version does not know or values it does not take."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown or "backbone" not in values:
            raise ValueError(f"an architecture has {[f.name for f in fields(cls)]}, not {sorted(values)}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A method beside DASNet.

    Attributes:
        title: the paper's name for it, and the paper.
        default_width: the paper's `PeerArchitecture.width`.
        losses: names of the losses it can be trained with, the paper's first.
        encoder: torchvision's name of the encoder that the paper's network has, whose weights it may start from; None:
            it has one of its own.
        version: what training does with a recipe; a training that began with another is not gone on with.
    """

    title: str
    default_width: int
    losses: tuple[str, ...] = SEGMENTATION_LOSSES
    encoder: str | None = None
    version: int = 1


PEERS: dict[str, Peer] = {
    "fc-ef": Peer(title="FC-EF (Daudt et al. 2018)", default_width=16),
    "fc-siam-conc": Peer(title="FC-Siam-conc (Daudt et al. 2018)", default_width=16),
    "fc-siam-diff": Peer(title="FC-Siam-diff (Daudt et al. 2018)", default_width=16),
    "cdnet": Peer(title="CDnet (Alcantarilla et al. 2018)", default_width=64),
    "bidatenet": Peer(title="BiDateNet (Papadomanolaki et al. 2019)", default_width=16),
    "dscn": Peer(title="DSCN (Zhan et al. 2017)", default_width=32, losses=("wdmc", "contrastive")),
    "sccn": Peer(title="SCCN (Liu et al. 2018)", default_width=20, losses=("coupling",), version=2),
    "bit": Peer(title="BIT (Chen et al. 2021)", default_width=32, encoder="resnet18"),
    "tinycd": Peer(title="TinyCD (Codegoni et al. 2022)", default_width=32, encoder="efficientnet_b4"),
    "changemamba": Peer(title="ChangeMamba, MambaBCD (Chen et al. 2024)", default_width=96),
}
"""The methods beside DASNet by name."""


@dataclass(frozen=True, kw_only=True)
class PeerArchitecture(EveryPixel):
    """Which network beside DASNet: everything that its weights' names and shapes, and what it computes, depend on.

    Attributes:
        method: the network's name.
        in_bands: bands of an image.
        width: channels at full resolution, of which the others are multiples; the paper's unless a smaller network is
            wanted.
    """

    described: ClassVar[str] = "an architecture of method {method!r} has"

    method: PeerMethod
    in_bands: int = 3
    width: int

    def __post_init__(self) -> None:
        if self.method not in get_args(PeerMethod):
            raise ValueError(f"method {self.method!r} is none of dasnet, {', '.join(get_args(PeerMethod))}")
        for name, value in (("in_bands", self.in_bands), ("width", self.width)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value!r}")


AnyArchitecture = Architecture | PeerArchitecture | ImportedArchitecture | PrecomputedArchitecture


def timm_name(backbone: str) -> str | None:
    """timm's name of an encoder; None for those with a name of their own."""
    return backbone.removeprefix(_TIMM) if backbone.startswith(_TIMM) else None


def require_backbone(backbone: str) -> str:
    """The name as it is; raises ValueError for one that no encoder can have. Whether timm knows it is asked later."""
    if backbone not in get_args(BackboneName) and not timm_name(backbone):
        raise ValueError(f"backbone {backbone!r} is none of {', '.join(get_args(BackboneName))}, and no timm:NAME")
    return backbone


def title_of(architecture: AnyArchitecture) -> str:
    """The method's name for people, with its paper where that is not DASNet's."""
    if isinstance(architecture, Architecture):
        return "DASNet, a Siamese network with dual attention"
    if isinstance(architecture, ImportedArchitecture | PrecomputedArchitecture):
        return architecture.title
    return PEERS[architecture.method].title


def architecture_from_dict(values: Mapping[str, Any]) -> AnyArchitecture:
    """What an architecture's ``to_dict`` gave.

    DASNet's has no method, as in bundles from before there were others; an imported one has inputs, that of
    precomputed embeddings says how they are compared.

    Raises:
        ValueError: fields that do not belong to the method, or values that it does not take.
    """
    if "embedding" in values:
        return PrecomputedArchitecture.from_dict(values)
    if "inputs" in values:
        return ImportedArchitecture.from_dict(values)
    return PeerArchitecture.from_dict(values) if "method" in values else Architecture.from_dict(values)


def _fits_attention(channels: int) -> bool:
    """Whether features of so many channels can be attended: query and key narrow, the value in heads of one width."""
    step = QUERY_SHARE if channels <= WIDEST_HEAD else WIDEST_HEAD
    return 0 < channels <= QUERY_SHARE * WIDEST_HEAD and channels % step == 0

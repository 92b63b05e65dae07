"""What is compared: variants of methods, and the tables made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dasnet.baselines.methods import UNTRAINED
from dasnet.networks.architectures import PEERS
from dasnet.training.augmentation import PSEUDO_CHANGE_FIELDS, PSEUDO_CHANGES

TableName = Literal["methods", "losses", "attention", "lambda", "decoder", "training", "margins", "objectives"]

_DASNET: dict[str, dict[str, Any]] = {
    "dasnet": {},
    "siam-conv": {"attention": "none"},
    "dasnet-resnet50": {"backbone": "resnet50", "head_channels": 512},  # a quarter of the features', as in the paper
    "dasnet-vgg16": {"backbone": "vgg16", "head_channels": 128},
    "dasnet-mobilenet": {"backbone": "mobilenet_v3"},
    "dasnet-decoder": {"decoder": "full"},
}


CHOICES = (*_DASNET, *PEERS, *UNTRAINED)
"""Names of all that can be compared."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of a table.

    Attributes:
        name: what the row is called.
        method: a network's name, or that of a method without training.
        changes: settings of the recipe that make the variant.
    """

    name: str
    method: str
    changes: Mapping[str, Any]

    @property
    def is_trained(self) -> bool:
        """Whether it has weights."""
        return self.method not in UNTRAINED


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the paper, for other data.

    Attributes:
        title: what it shows; `paper`: which of the paper's it repeats.
    """

    title: str
    paper: str
    variants: tuple[Variant, ...]


def _all_of(*changes: Mapping[str, Any]) -> dict[str, Any]:
    """All of them, the later over the earlier; strengths of augmentation one by one."""
    both = {name: value for one in changes for name, value in one.items()}
    strengths = [one["augmentation"] for one in changes if isinstance(one.get("augmentation"), dict)]
    if strengths and isinstance(both["augmentation"], dict):
        both["augmentation"] = {name: value for one in strengths for name, value in one.items()}
    return both


def _variants(rows: Mapping[str, Mapping[str, Any]]) -> tuple[Variant, ...]:
    return tuple(Variant(name=name, method="dasnet", changes=changes) for name, changes in rows.items())


_CONTRASTIVE: dict[str, Any] = {"loss": "contrastive", "distance": "l2"}

_COSINE: dict[str, Any] = {"loss": "wdmc", "distance": "cosine", "class_weights": "normalised"}

_WDMC: dict[str, Any] = {"loss": "wdmc", "distance": "l2", "class_weights": "normalised"}

_AIDS: dict[str, dict[str, Any]] = {
    "pseudo-changes": {"augmentation": {name: getattr(PSEUDO_CHANGES, name) for name in PSEUDO_CHANGE_FIELDS}},
    "averaged weights": {"ema": 0.99},
    "balanced samples": {"balance": 0.7},
}

_WITHOUT: dict[str, dict[str, Any]] = {
    "pseudo-changes": {"augmentation": dict.fromkeys(PSEUDO_CHANGE_FIELDS, 0.0)},
    "averaged weights": {"ema": 0.0},
    "balanced samples": {"balance": 0.0},
}

_MARGINS_UNCHANGED, _MARGINS_CHANGED = (0.1, 0.3, 0.5), (1.4, 1.8, 2.2)


ABLATIONS: dict[TableName, Table] = {
    "losses": Table(
        title="Losses and distances; WDMC weighs classes by 1/P, scaled to add up to 2",
        paper="Table III",
        variants=_variants(
            {
                f"{name}, {what}": {**attention, **changes}
                for name, attention in (("Siam-Conv", {"attention": "none"}), ("DASNet", {"attention": "both"}))
                for what, changes in (("contrastive, L2", _CONTRASTIVE), ("WDMC, cosine", _COSINE), ("WDMC, L2", _WDMC))
            }
            | {
                "DASNet, double margin without class weights, L2": {
                    **_WDMC,
                    "attention": "both",
                    "class_weights": "none",
                }
            }
        ),
    ),
    "attention": Table(
        title="Attention",
        paper="Table IV",
        variants=_variants({name: {"attention": name} for name in ("none", "spatial", "channel", "both")}),
    ),
    "lambda": Table(
        title="Weights λ of the spatial, the channel and the fused distance",
        paper="Table II",
        variants=_variants(
            {
                ", ".join(f"{weight:g}" for weight in weights): {"supervision": weights}
                for weights in ((0.0, 0.0, 1.0), (0.25, 0.25, 0.5), (1.0, 1.0, 1.0))
            }
        ),
    ),
    "decoder": Table(
        title="Resolution that a decoder brings the embedding to, and distance",
        paper="not in the paper",
        variants=_variants(
            {
                f"{decoder}, {name}": {"decoder": decoder, "distance": distance}
                for decoder in ("none", "half", "full")
                for name, distance in (("L2", "l2"), ("cosine", "cosine"))
            }
        ),
    ),
    "training": Table(
        title="Training with pseudo-changes, averaged weights, and samples with a change drawn more often",
        paper="not in the paper",
        variants=_variants(
            {"all three": _all_of(*_AIDS.values())}
            | {f"without {name}": _all_of(*({**_AIDS, name: _WITHOUT[name]}).values()) for name in _AIDS}
            | {"none": _all_of(*_WITHOUT.values())}
        ),
    ),
    "margins": Table(
        title="Margins m1 of unchanged and m2 of changed pixels",
        paper="Figure 7",
        variants=_variants(
            {
                f"m1 {low:g}, m2 {high:g}": {"margin_unchanged": low, "margin_changed": high}
                for low in _MARGINS_UNCHANGED
                for high in _MARGINS_CHANGED
            }
        ),
    ),
    "objectives": Table(
        title="Loss and head: distances cut by margins, or a probability of the difference learned as a segmentation",
        paper="not in the paper",
        variants=_variants(
            {
                "WDMC, L2": {"loss": "wdmc", "distance": "l2"},
                "contrastive, L2": {"loss": "contrastive", "distance": "l2"},
                "cross-entropy, learned": {"loss": "cross-entropy", "distance": "learned"},
                "Dice, learned": {"loss": "dice", "distance": "learned"},
            }
        ),
    ),
}

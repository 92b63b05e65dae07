"""From what a graph answers to a distance in [0, 2] at every pixel.

Legend of shapes: B pairs, D channels, (h, w) positions of the output, (H, W) pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dasnet.networks.encoders.positions import brought_to
from dasnet.networks.imported.description import ImportedArchitecture

ROUNDING = 1e-3
"""How far a probability may lie outside [0, 1], or two of them from the sum of 1: rounding of narrow arithmetic."""


class RangeError(ArithmeticError):
    """A graph answered what it was not imported for; the message has the values."""


def distance_of(answer: Tensor, architecture: ImportedArchitecture) -> Tensor:
    """What a graph of both dates answers, (B, h, w), (B, 1, h, w) or (B, 2, h, w), to (B, h, w) float32 in [0, 2].

    A probability p becomes 2p, log-odds z become 2 · sigmoid(z), a distance stays or becomes 2d / (d + middle).

    Raises:
        RangeError: a probability outside [0, 1], a negative distance, one above 2 without a middle, or NaN.
    """
    name, values = architecture.output_name, answer.float()
    if values.isnan().any():
        raise RangeError(f"output {name!r} holds NaN for images without one")
    first, changed = architecture.changed_channel, architecture.channels == 2
    if architecture.output == "logits":
        logit = values[:, first] - values[:, 1 - first] if changed else _single(values)
        if logit.isnan().any():  # of two infinite ones
            raise RangeError(f"both channels of output {name!r} are infinite at once: nothing follows from them")
        return 2 * logit.sigmoid()
    low, high = float(values.min()), float(values.max())
    if architecture.output == "probability":
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            raise RangeError(
                f"output {name!r} is read as a probability, in [0, 1], but reaches from {low:.4g} to {high:.4g}: "
                "what has no bounds is --output logits or distance"
            )
        if changed and (off := float((values.sum(dim=1) - 1).abs().max())) > ROUNDING:
            raise RangeError(
                f"the two channels of output {name!r} are read as probabilities of two classes, but their sum is up "
                f"to {off:.4g} away from 1: what is no softmax has one channel, or is --output logits"
            )
        return 2 * (values[:, first] if changed else _single(values)).clamp(0, 1)
    distance = _single(values)
    if low < -ROUNDING:
        raise RangeError(
            f"output {name!r} is read as a distance, from 0 on, but reaches down to {low:.4g}: "
            "what may be negative is --output logits"
        )
    distance = distance.clamp(min=0)
    if architecture.middle is not None:
        # infinity is as far as it goes
        return 2 - 2 * architecture.middle / (distance + architecture.middle)
    if high > 2 + ROUNDING:
        raise RangeError(
            f"output {name!r} is read as a distance in [0, 2], but reaches {high:.4g}: say by --middle which distance "
            "shall lie half-way, and 2d / (d + middle) brings all of them into that range"
        )
    return distance.clamp(max=2)


def embedding_of(answer: Tensor, architecture: ImportedArchitecture) -> Tensor:
    """Embeddings (B, D, h, w) brought to length 1 at each position, float32; raises RangeError for NaN."""
    values = answer.float()
    if not values.isfinite().all():
        raise RangeError(f"output {architecture.output_name!r} is read as embeddings, but is not finite everywhere")
    return F.normalize(values, dim=1)


def embedding_distance(before: Tensor, after: Tensor, architecture: ImportedArchitecture) -> Tensor:
    """Between two unit embeddings (B, D, h, w), at each position: (B, h, w) in [0, 2]."""
    if architecture.distance == "cosine":
        return (1 - (before * after).sum(dim=1)).clamp(0, 2)
    return torch.linalg.vector_norm(before - after, dim=1)


def at_every_pixel(distance: Tensor, *, stride: int, offset: float, height: int, width: int) -> Tensor:
    """Bilinear interpolation of (B, h, w) to (B, height, width), where position i lies at pixel stride · i + offset.

    Before the first position and beyond the last one their values are kept.
    """
    if stride == 1 and offset == 0:
        return distance
    return brought_to(distance[:, None], stride=stride, offset=offset, step=1, rows=height, cols=width)[:, 0]


def _single(values: Tensor) -> Tensor:
    """(B, h, w) as it is, (B, 1, h, w) without its channel."""
    return values[:, 0] if values.ndim == 4 else values

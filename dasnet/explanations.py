"""Looking into a network: distances by layer, Grad-CAM, where a pixel attends, t-SNE.

Legend of shapes: b pairs, C bands or channels, (H, W) pixels, (h, w) positions of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dasnet.errors import PredictorError
from dasnet.networks.architectures import STRIDE
from dasnet.networks.attention import SpatialAttention
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.dasnet import DASNet
from dasnet.networks.decoder import upsample
from dasnet.networks.peers.peer import PeerNetwork, SegmentationNetwork
from tiling.conventions import IGNORED

Layers = Mapping[str, Tensor]
"""Name → features, shallow to deep."""

DEEPEST, LAST = "deepest features of both dates", "last features of both dates"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a network makes of b pairs. All stays in the graph, so that gradients can be asked for.

    Attributes:
        dates: features of each date, (2b, C, h, w), the first b those of the first date.
        both: features of both dates together, (b, C, h, w): of a network that calls pixels changed by scores.
        evidence: (b, h, w) what it calls pixels changed by: the distance, or the log-odds of its scores. Not their
            probability, which hardly moves where the network is sure.
    """

    dates: Layers
    both: Layers
    evidence: Tensor

    @property
    def layers(self) -> Layers:
        """All of them."""
        return {**self.dates, **self.both}


def seen_by(network: ChangeNetwork, images: Tensor) -> Seen:
    """What a network makes of images (2b, C, H, W), normalised, the first b those of the first date."""
    if isinstance(network, DASNet):
        return _seen_by_dasnet(network, images)
    assert isinstance(network, PeerNetwork)
    features = network.compared(network.features(images))
    before, after = zip(*(_halves(level) for level in features), strict=True)
    dates = {_name_of(level, images): level for level in features}
    if not isinstance(network, SegmentationNetwork):
        return Seen(dates=dates, both={}, evidence=network.distance(before, after))
    layers: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        if network.deepest is not None:
            hooks.enter_context(_captured(network.deepest, layers, DEEPEST))
        hooks.enter_context(_captured(network.last_layer, layers, LAST, of_input=True))
        evidence = network.logit(before, after)
    return Seen(dates=dates, both=layers, evidence=evidence)


def _seen_by_dasnet(network: DASNet, images: Tensor) -> Seen:
    layers: dict[str, Tensor] = {}
    head = network.head
    with (
        _captured(head.conv5a, layers, "encoder", of_input=True),
        _captured(head.conv51, layers, "spatial attention's branch"),
        _captured(head.conv52, layers, "channel attention's branch"),
        _captured(head.conv8, layers, "fused embedding"),
    ):
        embedded = network.embed_fused(images)
    return Seen(dates=layers, both={}, evidence=network.distance(*_halves(embedded)))


def _name_of(level: Tensor, images: Tensor) -> str:
    if level is images:
        return "the image, normalised"  # of a network that looks at both dates together
    scale = round(images.shape[-1] / level.shape[-1])
    return "features" if scale == 1 else f"features at 1/{scale}"


@contextmanager
def _captured(module: nn.Module, into: dict[str, Tensor], name: str, *, of_input: bool = False) -> Iterator[None]:
    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        into[name] = inputs[0] if of_input else output

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    first, second = x.chunk(2)
    return first, second


def distance_maps(seen: Seen) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Distances by each date's layers and each metric, (b, h, w) in [0, 2]: "L2" and "cosine" of unit features.

    Of vectors of length 1, L2² = 2 · cosine: L2 is what keeps small differences apart, as in Figure 6 of the paper.
    """
    maps = {}
    for name, features in seen.dates.items():
        before, after = _halves(F.normalize(features.detach().float(), dim=1))
        length = torch.linalg.vector_norm(before - after, dim=1)
        maps[name] = {"L2": length.numpy(), "cosine": (length.square() / 2).numpy()}
    return maps


def grad_cam(
    network: ChangeNetwork, images: Tensor, label: NDArray[np.uint8], *, layer: str
) -> tuple[NDArray[np.float32], ...]:
    """What makes a network call the changed pixels changed: a map for each date, or one for both.

    Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) with the mean evidence over the changed pixels as the score y: with
    A_k the k-th channel of a layer, α_k = mean over positions of ∂y/∂A_k, and the map is ReLU(Σ α_k A_k). A Siamese
    network has one A a date, and so a map a date; a layer that sees both dates has one.

    Args:
        images: (2b, C, H, W) as of :func:`seen_by`.
        label: (b, H, W), 1 = changed.
        layer: a name of :attr:`Seen.layers`.

    Returns:
        One or two of (b, h, w) in [0, 1], each pair's own highest value being 1; 0 where a pair has no changed pixel.
    """
    with torch.enable_grad():
        seen = seen_by(network, images.detach().clone().requires_grad_())
        fine = upsample(seen.evidence, height=label.shape[1], width=label.shape[2], stride=network.stride)
        changed = torch.from_numpy(label == 1)
        score = (fine * changed).sum(dim=(1, 2)) / changed.sum(dim=(1, 2)).clamp(min=1)
        # a pair's score depends on its own features alone, so that one pass serves all
        features = seen.layers[layer]
        (gradient,) = torch.autograd.grad(score.sum(), features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = (weights * features).sum(dim=1).relu().detach().split(len(label))  # of (b, h, w)
    highest = torch.stack(maps).amax(dim=(0, 2, 3))[:, None, None].clamp(min=torch.finfo(maps[0].dtype).tiny)
    return tuple((relevance / highest).numpy() for relevance in maps)


@torch.inference_mode()
def attention_of(network: ChangeNetwork, images: Tensor, *, row: int, column: int) -> NDArray[np.float32]:
    """How much the position at a pixel attends to every position: (B, h, w), each adding up to 1.

    Raises:
        PredictorError: a network without spatial attention, or a pixel outside the images.
    """
    if not isinstance(network, DASNet) or not isinstance(network.head.sa, SpatialAttention):
        raise PredictorError("only a DASNet with spatial attention has a map of what a pixel attends to")
    height, width = images.shape[-2:]
    if not (0 <= row < height and 0 <= column < width):
        raise PredictorError(f"pixel {row}, {column} lies outside samples of {width} × {height} px")
    inputs: dict[str, Tensor] = {}
    with _captured(network.head.sa, inputs, "x", of_input=True):
        network.embed_fused(images)
    x = inputs["x"]
    rows, columns = x.shape[-2:]
    at = (min(round(row / STRIDE), rows - 1), min(round(column / STRIDE), columns - 1))
    query = network.head.sa.query_conv(x)[:, :, at[0], at[1]]  # (B, C/8)
    energy = torch.einsum("bc,bchw->bhw", query, network.head.sa.key_conv(x))
    return energy.flatten(1).softmax(dim=1).reshape(energy.shape).numpy()


def last_features(network: ChangeNetwork, images: Tensor) -> tuple[str, Tensor]:
    """What a network tells changed from unchanged by, (b, C, h, w), and its name; images as of :func:`seen_by`.

    Of a distance it is the difference of the two dates' last features, of scores what the last layer makes them of.
    """
    seen = seen_by(network, images)
    if LAST in seen.both:
        return LAST, seen.both[LAST]
    name, features = list(seen.dates.items())[-1]
    before, after = _halves(features)
    return name, after - before


def labelled_vectors(
    features: Tensor, label: NDArray[np.uint8], *, most: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features at labelled positions, as many changed as unchanged where there are.

    Args:
        features: (b, C, h, w).
        label: (b, H, W), read at each position's own pixel.
        most: vectors of each class.

    Returns:
        (n, C) and (n,), True = changed.
    """
    rows, columns = features.shape[2:]
    at_rows = np.minimum(np.arange(rows) * spacing(label.shape[1], rows), label.shape[1] - 1)
    at_columns = np.minimum(np.arange(columns) * spacing(label.shape[2], columns), label.shape[2] - 1)
    labels = label[:, at_rows][:, :, at_columns].reshape(-1)
    chosen = few_of_each(labels, most=most, seed=seed)
    assert IGNORED not in labels[chosen]
    sample, row, column = (torch.from_numpy(at) for at in np.unravel_index(chosen, (len(label), rows, columns)))
    return features.detach()[sample, :, row, column].numpy(), labels[chosen] == 1


def few_of_each(labels: NDArray[Any], *, most: int, seed: int) -> NDArray[np.int64]:
    """Which of (n,) labels are drawn: at most so many unchanged (0), then as many changed (1)."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(np.flatnonzero(labels == kind))[:most] for kind in (0, 1)])


def spacing(pixels: int, positions: int) -> int:
    """Pixels between two positions of a layer that sees `pixels` at so many positions: 1, 2, 4, 8, …; the last position
    may lie on the edge beyond them."""
    return 2 ** max(round(math.log2(pixels / positions)), 0)


def embedded_in_a_plane(vectors: NDArray[np.float32], *, seed: int) -> NDArray[np.float32]:
    """t-SNE (van der Maaten and Hinton 2008) of (n, C), n ≥ 4, to (n, 2)."""
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    start = "pca" if vectors.shape[1] > 1 else "random"  # one channel has no two components
    return np.asarray(TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(vectors))

"""A graph is run a few times before it is taken: what it answers, for which sizes, for one window and for several."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dasnet.errors import BundleError
from dasnet.networks.imported.answers import RangeError
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.networks.imported.network import ImportedNetwork
from dasnet.prediction.importing.description import require_shape

_TOLERANCE = 1e-3
"""Difference in distances, in [0, 2], below which two answers are the same: rounding of another order of sums."""

_PAIRS = 3
_LARGEST_STEP = 64
"""Pixels by which a larger window is tried."""


def tried(graph: bytes, draft: ImportedArchitecture, *, offset: float | None, name: str) -> ImportedArchitecture:
    """The description with what runs of the graph have shown: channels, stride, sizes, batches.

    Args:
        draft: as the graph's own words give it.
        offset: pixels from the first pixel to the first position of a coarser output; None = not said.

    Raises:
        BundleError: the graph does not run, answers another shape, a coarser one of which no offset is said, values
            outside the range of what it is said to answer, or what depends on the rest of the batch or on chance.
    """
    images = _images(draft, draft.side)
    network = _network(graph, draft)
    one = images[:, :1]
    try:
        architecture = _shaped(network, one, offset=offset, name=name)
        network = _network(graph, architecture)
        alone = torch.cat([_distance(network, images[:, pair : pair + 1]) for pair in range(_PAIRS)])
        again = _distance(network, one)
        if (difference := float((again - alone[:1]).abs().max())) > _TOLERANCE:
            raise BundleError(
                f"{name}: the same images twice give distances that differ by up to {difference:.3g}: something in "
                "the graph is random, as dropout is; export it in eval mode"
            )
        if not architecture.fixed_batch:
            architecture = _batched(network, images, alone, name=name)
    except RangeError as error:
        raise BundleError(f"{name}: {error}") from error
    if architecture.multiple:
        architecture = replace(architecture, multiple=_step(_network(graph, architecture)))
    return architecture


def doubtful(graph: bytes, architecture: ImportedArchitecture) -> list[str]:
    """What looks as if it had been said wrongly, in sentences."""
    network = _network(graph, architecture)
    images = _images(architecture, architecture.side)
    if deaf := _deaf_to(network, images):
        return [
            f"another {deaf} does not change output {architecture.output_name!r} for the images that it was tried "
            "with: look at --inputs, --input-names and --normalisation"
        ]
    if architecture.output != "logits":
        return []
    answer = _answer(network, images[:, :1]).float()
    if float(answer.min()) < 0 or float(answer.max()) > 1:
        return []
    if architecture.channels == 2 and float((answer.sum(dim=1) - 1).abs().max()) > _TOLERANCE:
        return []
    return [
        f"all values of output {architecture.output_name!r} lie between 0 and 1 for the images that it was tried with: "
        "if they are probabilities, import it with --output probability"
    ]


def _deaf_to(network: ImportedNetwork, images: Tensor) -> str | None:
    """The date that a graph takes no notice of, in words; None = it heeds both."""
    before, after = images
    usual = _distance(network, images[:, :1])
    other_before = _distance(network, torch.stack([before[1:2], after[:1]]))
    other_after = _distance(network, torch.stack([before[:1], after[2:3]]))
    deaf = [torch.equal(usual, other) for other in (other_before, other_after)]
    words = {(True, True): "image of either date", (True, False): "first date", (False, True): "second date"}
    return words.get((deaf[0], deaf[1]))


def _images(architecture: ImportedArchitecture, side: int) -> Tensor:
    """(2, pairs, C, side, side) as the network gets them: smooth ones with noise; equal dates, and dates apart."""
    random = torch.Generator().manual_seed(0)
    shape = (2 * _PAIRS, architecture.in_bands)
    smooth = F.interpolate(torch.randn((*shape, 8, 8), generator=random), size=(side, side), mode="bilinear")
    noise = torch.randn((*shape, side, side), generator=random)
    images = (smooth + 0.3 * noise).clamp(-3, 3).unflatten(0, (2, _PAIRS)).clone()
    images[1, 1] = images[0, 1]
    images[1, 2, :, : side // 2] = images[0, 2, :, : side // 2]
    return images


def _network(graph: bytes, architecture: ImportedArchitecture) -> ImportedNetwork:
    network = ImportedNetwork(architecture)
    network.graph.copy_(torch.frombuffer(bytearray(graph), dtype=torch.uint8))
    return network


@torch.inference_mode()
def _distance(network: ImportedNetwork, images: Tensor) -> Tensor:
    before, after = images
    return network.distance(network.features(before), network.features(after))


@torch.inference_mode()
def _answer(network: ImportedNetwork, images: Tensor) -> Tensor:
    before, after = images
    match network.architecture.inputs:
        case "stacked":
            return network.answer([torch.cat([before, after], dim=1)])
        case "siamese":
            return network.answer([before, after])
        case _:
            return network.answer([before])


def _shaped(network: ImportedNetwork, one: Tensor, *, offset: float | None, name: str) -> ImportedArchitecture:
    """With channels and stride, as the answer to one pair shows them."""
    architecture, side = network.architecture, one.shape[-1]
    try:
        answer = _answer(network, one)
    except BundleError as error:
        raise BundleError(f"{name}: windows of {side} px: {error}") from error
    shape = f"{architecture.output_name!r} {tuple(answer.shape)}"
    channels = answer.shape[1] if answer.ndim == 4 else 0
    require_shape(shape, answer.ndim, channels, architecture.inputs, name=name)
    if answer.shape[0] != 1:
        raise BundleError(f"{name}: output {shape} of one window has not one entry but {answer.shape[0]}")
    if channels == 2 and architecture.output == "distance":
        raise BundleError(f"{name}: output {shape} has two channels, and a distance has one")
    rows, columns = answer.shape[-2:]
    if rows != columns or side % rows:
        raise BundleError(
            f"{name}: output {shape} of a window of {side} × {side} px has positions that are no whole number of "
            "pixels apart, the same along rows and columns"
        )
    stride = side // rows
    if stride > 1 and offset is None:
        raise BundleError(
            f"{name}: positions of output {shape} are {stride} px apart, and no graph says where the first one lies: "
            f"give --offset, 0 for convolutions with symmetric padding, {(stride - 1) / 2:g} for patches or means of "
            f"{stride} × {stride} px"
        )
    if offset is not None and abs(offset) >= stride:
        raise BundleError(
            f"{name}: positions of output {shape} are {stride} px apart, so that the first one lies less than that "
            f"from the first pixel: --offset {offset:g} does not fit"
            + (", an output of every pixel has none" if stride == 1 else "")
        )
    if channels != 2 and architecture.changed_channel != 1:
        raise BundleError(
            f"{name}: output {shape} has one value a position, which stands for changed: of two channels alone one is "
            f"chosen by --changed-channel {architecture.changed_channel}"
        )
    return replace(architecture, channels=channels, output_stride=stride, offset=offset or 0.0)


def _batched(network: ImportedNetwork, images: Tensor, alone: Tensor, *, name: str) -> ImportedArchitecture:
    """Whether several windows at a time are taken, and answered as each by itself."""
    try:
        together = _distance(network, images)
    except (BundleError, RuntimeError):  # a free axis that is not free inside the graph
        return replace(network.architecture, fixed_batch=True)
    if together.shape != alone.shape:
        return replace(network.architecture, fixed_batch=True)
    if (difference := float((together - alone).abs().max())) > _TOLERANCE:
        raise BundleError(
            f"{name}: what it answers for a window depends on the other windows of the batch (distances differ by up "
            f"to {difference:.3g}): a normalisation uses the batch's own statistics; export it in eval mode"
        )
    return network.architecture


def _step(network: ImportedNetwork) -> int:
    """By how many pixels larger a window may be; 0 = no other size is taken."""
    side, stride, step = network.architecture.side, network.architecture.output_stride, 1
    while step <= _LARGEST_STEP:
        if step % stride == 0:
            try:
                answer = _answer(network, _images(network.architecture, side + step)[:, :1])
            except BundleError:  # the runtime says that shapes do not fit
                answer = None
            if answer is not None and tuple(answer.shape[-2:]) == ((side + step) // stride,) * 2:
                return step
        step *= 2
    return 0

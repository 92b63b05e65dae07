"""Quantisation after training: a network's embedding of one date as a graph of integers, its ranges from samples.

Legend of shapes: C bands, (s, s) pixels of a window.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dasnet.errors import BundleError
from dasnet.networks.change_network import ChangeNetwork
from dasnet.prediction.bundle import Bundle, build_model
from dasnet.prediction.device_block import bits, window_values
from dasnet.prediction.folding import fold_normalisation
from dasnet.prediction.quantised.description import QuantisedDescription, require_quantiser
from dasnet.prediction.quantised.graph import QuantisedGraph, anonymous, digest_of
from dasnet.prediction.quantised.session import openvino, version_of_openvino

_COMPUTING = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
_MULTIPLES = (8, 16, 32, 64)
_TOLERANCE = 1e-3
"""How far the graph before its quantisation may be from the network, as a share of the largest value."""


def network_inputs(bundle: Bundle, images: NDArray[Any], valid: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Images as the bundle's network is given them.

    Args:
        images: (N, C, s, s) in the bundle's data type.
        valid: (N, s, s), True = valid.

    Returns:
        N of (1, C, s, s) float32, normalised, 0 where invalid.
    """
    mean, std = (
        torch.tensor([getattr(band, name) for band in bundle.bands]).reshape(-1, 1, 1) for name in ("mean", "std")
    )
    values = window_values(torch.from_numpy(bits(images)), dtype=bundle.dtype).sub(mean).div_(std)
    values.masked_fill_(~torch.from_numpy(valid)[:, None], 0.0)
    return [image.numpy() for image in values.split(1)]


def quantised_graph(bundle: Bundle, inputs: Sequence[NDArray[np.float32]], *, dataset_sha256: str) -> QuantisedGraph:
    """Quantise what a bundle's network makes of one date; the same inputs give the same bytes.

    Weights are rounded to seven bits: in CPUs without instructions for dot products of integers two products of eight
    bits each do not fit where they are added, and the same graph would answer otherwise there.

    Args:
        inputs: of the network, (1, C, s, s) each, as :func:`network_inputs` gives them.
        dataset_sha256: digest of the dataset that they are of.

    Raises:
        BundleError: OpenVINO or NNCF is not installed, or cannot take this network; it keeps of a date the image alone.
    """
    require_quantiser("a network")
    library = openvino()
    model = build_model(bundle)
    fold_normalisation(model, in_bands=len(bundle.bands))
    side = inputs[0].shape[-1]
    with _quiet():
        import nncf

        try:
            plain = _converted(library, model, torch.from_numpy(inputs[0]))
            multiple = _multiple(library, plain, model, bands=len(bundle.bands), side=side)
            graph = nncf.quantize(
                plain,
                nncf.Dataset(list(inputs)),
                subset_size=len(inputs),
                preset=nncf.QuantizationPreset.MIXED,
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
            )
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BundleError(f"this network cannot be quantised: {reason}") from error
        topology, constants = _bytes_of(library, graph)
    return QuantisedGraph(
        description=QuantisedDescription(
            side=side,
            multiple=multiple,
            answers=len(graph.outputs),
            images=len(inputs),
            dataset_sha256=dataset_sha256,
            topology_bytes=len(topology),
            constants_bytes=len(constants),
            sha256=digest_of(topology, constants),
            made_with={"openvino": version_of_openvino(), "nncf": str(nncf.__version__)},
        ),
        topology=topology,
        constants=constants,
    )


class _Leaves(nn.Module):
    """What a network keeps of a date, as a flat tuple of tensors."""

    def __init__(self, model: ChangeNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(tree_leaves(self.model.features(images)))


def _converted(library: Any, model: ChangeNetwork, example: Tensor) -> Any:
    """The embedding of one date as a graph in float32, for windows of any size that its operators take."""
    with torch.inference_mode():
        leaves = _Leaves(model)(example)
    if not all(leaf.dtype == torch.float32 for leaf in leaves):
        raise BundleError(f"what it keeps of a date is not float32 alone: {', '.join(str(x.dtype) for x in leaves)}")
    shape = library.PartialShape([1, example.shape[1], -1, -1])
    graph = library.convert_model(_Leaves(model), example_input=example, input=[shape])
    if not any(node.get_type_name() in _COMPUTING for node in graph.get_ops()):
        raise BundleError(
            "its network computes nothing of one date alone, but looks at both at once: there is nothing to quantise"
        )
    return graph


def _multiple(library: Any, graph: Any, model: ChangeNetwork, *, bands: int, side: int) -> int:
    """By which step other windows may be larger or smaller; 0 = only `side` answers as the network does.

    Raises:
        BundleError: not even that.
    """

    def is_same(size: int) -> bool:
        random = np.random.default_rng(size)
        image = random.standard_normal((1, bands, size, size), dtype=np.float32)
        with torch.inference_mode():
            expected = _Leaves(model)(torch.from_numpy(image))
        resized = graph.clone()
        try:
            resized.reshape([1, bands, size, size])
            answers = library.Core().compile_model(resized, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)
        except RuntimeError:
            return False
        return all(
            answers[number].shape == tuple(leaf.shape)
            and float(np.abs(answers[number] - leaf.numpy()).max()) <= _TOLERANCE * float(leaf.abs().max())
            for number, leaf in enumerate(expected)
        )

    if not is_same(side):
        raise BundleError("OpenVINO's graph of this network answers otherwise than the network")
    return next((step for step in _MULTIPLES if all(is_same(side + times * step) for times in (1, 3))), 0)


def _bytes_of(library: Any, graph: Any) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.xml"
        library.save_model(graph, path, compress_to_fp16=False)
        return anonymous(path.read_bytes()), path.with_suffix(".bin").read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """What libraries write of their progress, and warnings of traces, are not for a person here."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Small graphs of ONNX, written down as text, and networks of ours as graphs that torch exports."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.peers.peer import SegmentationNetwork

STACKED = """(float[N,6,H,W] x) => (float[N,1,H,W] p) <int64[1] channels = {1}> {
    before, after = Split<axis=1, num_outputs=2>(x)
    difference = Sub(after, before)
    size = Abs(difference)
    mean = ReduceMean<keepdims=1>(size, channels)
    p = Tanh(mean)
}"""
"""The mean absolute difference of all bands, squeezed into [0, 1)."""


def write_graph(path: Path, text: str, *, opset: int = 20, domains: str = "", ir_version: int = 10) -> Path:
    """A model with one graph, as ONNX's text form gives it."""
    import onnx

    model = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}{domains}]> agraph {text}')
    path.write_bytes(model.SerializeToString())
    return path


class Siamese(nn.Module):
    """Two scores of two dates."""

    def __init__(self, network: ChangeNetwork) -> None:
        super().__init__()
        assert isinstance(network, SegmentationNetwork)
        self.network = network

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return self.network.scores(self.network.features(before), self.network.features(after))


class Stacked(Siamese):
    """The probability of two dates in one image."""

    def forward(self, both: Tensor) -> Tensor:  # type: ignore[override]
        before, after = both.chunk(2, dim=1)
        return self.network.distance(self.network.features(before), self.network.features(after))[:, None] / 2


class Embedding(nn.Module):
    """Features of one date."""

    def __init__(self, network: ChangeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Any:
        return self.network.features(image)


def export(path: Path, module: nn.Module, *images: tuple[int, ...]) -> Path:
    """What torch writes of a module for images of these shapes; batch, rows and columns are free."""
    names = [f"image{number}" for number in range(len(images))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is an old one, and ten times as fast
        torch.onnx.export(
            module.eval(),
            tuple(torch.zeros(shape) for shape in images),
            str(path),
            dynamo=False,
            input_names=names,
            output_names=["answer"],
            dynamic_axes={name: {0: "batch", 2: "rows", 3: "columns"} for name in (*names, "answer")},
        )
    return path

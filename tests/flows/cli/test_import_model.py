"""`dasnet import-model` at a terminal: what is typed becomes what the graph is held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from dasnet.prediction.bundle import load_bundle
from flows.cli.import_model import ImportModelRequest
from tests.dasnet.graphs import STACKED, write_graph
from tests.flows.conftest import Dasnet

TYPED = ("--inputs", "stacked", "--output", "probability")


def test_a_graph_becomes_a_bundle_that_says_what_it_is(dasnet: Dasnet, tmp_path: Path) -> None:
    graph, output = write_graph(tmp_path / "g.onnx", STACKED), tmp_path / "b.safetensors"
    done = dasnet("import-model", graph, output, *TYPED, "--normalisation", "imagenet", "--bands", "blue,red,green")
    assert done.code == 0 and "dasnet calibrate" in done.out
    bands = {band.name: (band.mean, band.std) for band in load_bundle(output).bands}
    assert list(bands) == ["blue", "red", "green"]  # in the graph's order, whichever that is
    assert bands["red"] == pytest.approx((123.675, 58.395))
    shown = dasnet("bundle", output)
    assert "not calibrated" in shown.out and "g.onnx" in shown.out


def test_what_does_not_fit_the_graph_is_refused_and_nothing_written(dasnet: Dasnet, tmp_path: Path) -> None:
    graph, output = write_graph(tmp_path / "g.onnx", STACKED), tmp_path / "b.safetensors"
    done = dasnet("import-model", graph, output, *TYPED, "--mean", "0", "--std", "255", "--bands", "red,green")
    assert done.code == 2 and "has 6 channels, but inputs stacked of 2 bands" in done.err
    assert not output.exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"inputs": "embed", "output": "logits"}, "has none"),
        ({"inputs": "siamese", "output": None}, "needs --output"),
        ({"distance": "cosine"}, "is of embeddings"),
        ({"normalisation": None}, "--mean and --std, or --normalisation"),
        ({"mean": "1,2,3"}, "go together"),
        ({"normalisation": None, "mean": "1,2", "std": "3"}, "--mean has 2 values for 3 bands"),
        ({"bands": "red,green,nir"}, "not of red, green, nir in uint8"),
        ({"bundle": "b.onnx"}, "ends with .safetensors"),
        ({"dtype": "uint16"}, "in uint16: give --mean and --std"),
    ],
)
def test_what_does_not_go_together_is_refused(typed: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"model": "g.onnx", "bundle": "b.safetensors", "inputs": "stacked", "output": "logits"}
    with pytest.raises(ValidationError, match=message):
        ImportModelRequest.model_validate({**values, "normalisation": "imagenet", **typed})

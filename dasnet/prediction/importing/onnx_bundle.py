"""From a file of ONNX, or a trusted program of torch.export, to a bundle."""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dasnet.errors import BundleError
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.networks.imported.graph import Graph, graph_of, read_graph, require_runtime
from dasnet.prediction.bundle import Bundle, save_bundle
from dasnet.prediction.calibration import NOT_CALIBRATED, UNCALIBRATED
from dasnet.prediction.header import TRUSTED, require_place
from dasnet.prediction.importing.description import Reading, describe
from dasnet.prediction.importing.expected import read_expected, require_same
from dasnet.prediction.importing.exported_program import SUFFIX, as_onnx
from dasnet.prediction.importing.trial import doubtful, tried

_MIDDLE = 1.0


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A bundle that was written, and what a person should know of it."""

    bundle: Bundle
    warnings: tuple[str, ...]


def import_model(
    file: str | Path, output: str | Path, reading: Reading, *, trust: bool = False, expected: str | Path | None = None
) -> Imported:
    """Write a bundle of a graph; nothing is written before the graph was tried out.

    Args:
        file: a graph of ONNX, or a program of torch.export (.pt2).
        trust: read a program of torch.export, which can run code.
        expected: .npz file with inputs, and what the network's own code answered to them, by the graph's names.

    Raises:
        BundleError: the file, or what is said of it, cannot be; the message has both. Or `output` cannot be a file.
    """
    file = Path(file)
    require_place(Path(output))
    require_runtime(str(file))
    answers: dict[str, dict[str, np.ndarray]] = {}
    if expected is not None:
        answers[str(expected)] = read_expected(Path(expected))
    trusted = file.suffix == SUFFIX
    if trusted:
        graph, answers["the program"] = _program(file, trust=trust)
    else:
        graph = read_graph(file)
    architecture = tried(graph.content, describe(graph, reading, name=str(file)), offset=reading.offset, name=str(file))
    apart = [
        require_same(given, graph.content, architecture, source=source, name=str(file))
        for source, given in answers.items()
    ]
    warnings = doubtful(graph.content, architecture)
    try:
        bundle = Bundle(
            state={"graph": torch.frombuffer(bytearray(graph.content), dtype=torch.uint8)},
            architecture=architecture,
            bands=reading.bands,
            dtype=reading.dtype,
            threshold=_threshold(reading),
            calibration=UNCALIBRATED,
            window=architecture.side,
            resolution=reading.resolution,
            provenance={
                "imported_from": file.name,
                "sha256": dict(graph.sha256),
                "opset": graph.opset,
                "calibrated": False,
                **({TRUSTED: True} if trusted else {}),
                **({"expected_answers_apart": max(apart)} if apart else {}),
            },
            card=_card(file, graph, architecture, reading, trusted=trusted, apart=apart),
        )
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error
    return Imported(bundle=save_bundle(output, bundle), warnings=tuple(warnings))


def _program(file: Path, *, trust: bool) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph of a program, and what the program itself answers."""
    content, examples, answers = as_onnx(file, trust=trust)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    graph = graph_of(content, name=str(file), sha256={file.name: digest})
    if len(examples) != len(graph.inputs) or len(answers) != len(graph.outputs):
        raise BundleError(
            f"{file} takes {len(examples)} tensors and answers {len(answers)}, but its graph has {len(graph.inputs)} "
            f"inputs and {len(graph.outputs)} outputs: export a module that returns a tensor or a tuple of tensors"
        )
    names = [port.name for port in (*graph.inputs, *graph.outputs)]
    return graph, dict(zip(names, map(_array, (*examples, *answers)), strict=True))


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy())


def _threshold(reading: Reading) -> float:
    """The probability, before any calibration, of the threshold on the graph's own output."""
    own = reading.threshold
    if own is None:
        distance = _MIDDLE
    elif reading.output in ("probability", "logits"):
        distance = 2 * own
    elif reading.middle is not None:
        distance = 2 * own / (own + reading.middle) if own > 0 else own
    else:
        distance = own
    if not 0 < distance < 2:
        raise BundleError(f"threshold {own:g} lies outside of what {reading.output or reading.distance} can be")
    return float(UNCALIBRATED.probability(torch.tensor(distance, dtype=torch.float64)))


def _card(
    file: Path, graph: Graph, architecture: ImportedArchitecture, reading: Reading, *, trusted: bool, apart: list[float]
) -> str:
    means = ", ".join(f"{band.name} ({band.mean:g}, {band.std:g})" for band in reading.bands)
    sizes = {0: "no other size", 1: "any other size"}.get(
        architecture.multiple, f"others that differ by a multiple of {architecture.multiple} px"
    )
    positions = (
        "It answers for every pixel."
        if architecture.output_stride == 1
        else f"Positions of its output are {architecture.output_stride} px apart, the first one at pixel "
        f"{architecture.offset:g}; between them it is interpolated."
    )
    answers = {
        "probability": "a probability p of change, read as the distance 2p",
        "logits": "log-odds of change z, read as the distance 2 · sigmoid(z)",
        "distance": "a distance" + (f" d, read as 2d / (d + {architecture.middle:g})" if architecture.middle else ""),
        None: f"an embedding of one date; two of them are compared by {architecture.distance}, each of length 1",
    }[architecture.output]
    paragraphs = [
        f"# {file.stem}, imported",
        f"A graph that others have made, from `{file.name}` (digests in the provenance; ONNX's operators, version "
        f"{graph.opset}). ONNX Runtime computes it. Inputs: {architecture.inputs}; it answers {answers}. {positions}",
        f"Bands with mean and standard deviation by which they are normalised: {means}; {reading.dtype}. Windows of "
        f"{architecture.side} px, and {sizes}.",
    ]
    if trusted:
        paragraphs.append(
            "The file was a program of torch.export, which can run code when it is read. It was read once, at the "
            "import, by the word `--trust`; the bundle holds a graph of operators that was made from it, and no code."
        )
    paragraphs.append(
        f"Its answers were held against those of the network's own code: at most {max(apart):.1e} apart."
        if apart
        else "Nobody has held its answers against those of the network's own code (`--expected`)."
    )
    paragraphs.append(
        f"It is {NOT_CALIBRATED}: probability 0.5 stands at distance 1, the middle of the range, which is a choice "
        "and not a measurement. `dasnet calibrate` fits calibration and threshold to labelled samples."
    )
    return "\n\n".join(text if text[0] == "#" else textwrap.fill(text, 120) for text in paragraphs) + "\n"

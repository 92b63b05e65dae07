"""A bundle is a model file: weights and everything that a prediction depends on, in one safetensors file.

A bundle never holds a pickle, and nothing in it is executed. What it says beside the weights is its header.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dasnet.errors import BundleError
from dasnet.networks.architectures import AnyArchitecture
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.networks.imported.network import require_digest
from dasnet.networks.methods import build_network
from dasnet.prediction.calibration import UNCALIBRATED
from dasnet.prediction.header import METADATA_KEY, Band, BundleHeader, naming, read_header, readable
from dasnet.prediction.quantised.graph import KEYS, QuantisedGraph, graph_among

_LISTED = 8  # names in a message


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle(BundleHeader):
    """A model that can be used: its header and its weights, checked when made.

    Attributes:
        state: the network's state dict, float32 on the CPU.
        quantised_graph: the graph that `quantised` describes.
    """

    state: Mapping[str, Tensor]
    quantised_graph: QuantisedGraph | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantised != (None if self.quantised_graph is None else self.quantised_graph.description):
            raise BundleError("the header describes another quantised graph than the bundle holds")
        _check_state(self.state, self.architecture)


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Read and check a bundle: ``load_bundle("synthetic")`` or ``load_bundle("runs/mine.safetensors")``.

    Raises:
        BundleError: no such bundle, not a safetensors file (a pickle is never opened), another format version, missing
            or unexpected tensors, NaN or infinite weights, or metadata that make no sense.
    """
    header = read_header(name_or_path)
    assert header.path is not None
    with readable(header.path), safe_open(header.path, framework="pt", device="cpu") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    state = {
        key: value.float() if value.is_floating_point() else value for key, value in stored.items() if key not in KEYS
    }
    with naming(header.path):
        return Bundle(**vars(header), state=state, quantised_graph=graph_among(stored, header.quantised))


def save_bundle(path: str | Path, bundle: Bundle, *, half: bool = True) -> Bundle:
    """Write a bundle under a temporary name, then rename it; return it as read back.

    Args:
        half: keep convolution weights as float16, which halves the file; they are float32 again when loaded. Vectors
            (biases, normalisation) stay float32: their range is wider.

    Raises:
        BundleError: a weight beyond float16's range.
    """
    path = Path(path)
    tensors = {key: _stored(key, value, half=half) for key, value in bundle.state.items()}
    tensors |= {} if bundle.quantised_graph is None else bundle.quantised_graph.tensors()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata={METADATA_KEY: bundle.to_json()})
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return load_bundle(path.absolute())


def is_half(path: Path) -> bool:
    """Whether a bundle's file keeps weights as float16; raises BundleError for a file that is none."""
    with readable(path), safe_open(path, framework="numpy") as file:
        return any(file.get_slice(key).get_dtype() == "F16" for key in file.keys())  # noqa: SIM118 (not a mapping)


def build_model(bundle: Bundle) -> ChangeNetwork:
    """The bundle's network with its weights, float32 on the CPU, in eval mode."""
    model = build_network(bundle.architecture)
    model.load_state_dict(dict(bundle.state), strict=True)
    return model.eval()


def random_bundle(
    architecture: AnyArchitecture,
    bands: tuple[Band, ...] | None = None,
    *,
    seed: int = 0,
    dtype: str = "uint8",
    window: int = 256,
) -> Bundle:
    """A bundle of random weights: for trying a data path with any number of bands. Its predictions mean nothing.

    Attention scales are 0.5 and normalisation layers unequal, so that every layer has a part in the result.
    """
    if bands is None:
        centre = {"uint8": 128.0, "uint16": 10_000.0}.get(dtype, 0.0)
        spread = {"uint8": 64.0, "uint16": 4_000.0}.get(dtype, 1.0)
        bands = tuple(Band(name=f"band{i + 1}", mean=centre, std=spread) for i in range(architecture.in_bands))
    random = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for key, shape in sorted(_expected(architecture).items()):
        noise = torch.randn(shape, generator=random)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
        elif key.endswith("gamma"):
            state[key] = torch.full(shape, 0.5)
        elif len(shape) > 1:
            state[key] = noise * math.sqrt(2 / math.prod(shape[1:]))
        elif key.endswith("running_var"):
            state[key] = 1 + 0.1 * noise.abs()
        else:
            state[key] = 0.1 * noise + (1 if key.endswith("weight") else 0)
    return Bundle(
        state=state,
        architecture=architecture,
        bands=bands,
        dtype=dtype,
        threshold=0.5,
        calibration=UNCALIBRATED,
        window=window,
        provenance={"weights": f"random, seed {seed}"},
        card="Random weights. The predictions mean nothing.",
    )


def _expected(architecture: AnyArchitecture) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = build_network(architecture)
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def _check_state(state: Mapping[str, Tensor], architecture: AnyArchitecture) -> None:
    expected = _expected(architecture)
    missing, unexpected = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or unexpected:
        raise BundleError(
            f"weights do not fit {architecture}: missing {_some(missing)}; unexpected {_some(unexpected)}"
        )
    wrong = [
        f"{key} is {tuple(state[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if tuple(state[key].shape) != shape
    ]
    if wrong:
        raise BundleError(f"weights do not fit {architecture}: {_some(wrong)}")
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise BundleError(f"weights are NaN or infinite in {_some(broken)}: the training that made them diverged")
    if isinstance(architecture, ImportedArchitecture):
        require_digest(state["graph"].numpy().tobytes(), architecture)


def _stored(key: str, value: Tensor, *, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    if not (half and value.is_floating_point() and value.ndim > 1):
        return value
    narrow = value.half()
    if not torch.isfinite(narrow).all():
        raise BundleError(f"{key} reaches {float(value.abs().max()):.3g}, beyond float16: save it with half=False")
    return narrow


def _some(names: list[str]) -> str:
    listed = ", ".join(names[:_LISTED]) or "nothing"
    return listed + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")

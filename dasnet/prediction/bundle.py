"""A bundle is a model file: weights and everything that a prediction depends on, in one safetensors file.

The file's metadata has one key, ``dasnet``, with JSON: format version, architecture, bands with their normalisation,
data type, threshold, calibration, window, ground resolution, provenance, metrics and a card. A bundle never holds a
pickle, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dasnet.errors import BundleError
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.methods import AnyArchitecture, architecture_from_dict, build_network
from dasnet.prediction.calibration import Calibration

FORMAT_VERSION = 1
DTYPES = ("uint8", "uint16", "float32")
BUNDLES = Path(__file__).parents[1] / "bundles"
"""Where the shipped bundles live, ``NAME.safetensors`` each."""

_KEY = "dasnet"
_LISTED = 8  # names in a message


@dataclass(frozen=True, kw_only=True)
class Band:
    """One band the network takes: (value − mean) / std, both in the mosaic's own units, over the training pixels."""

    name: str
    mean: float
    std: float

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise BundleError(f"a band has a name, not {self.name!r}")
        if not (_finite(self.mean) and _finite(self.std) and self.std > 0):
            raise BundleError(f"band {self.name}: mean {self.mean!r} must be finite and std {self.std!r} positive")


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """A model that can be used: checked when made, whether read from a file or about to be written.

    Attributes:
        state: the network's state dict, float32 on the CPU.
        architecture: which network `state` belongs to.
        bands: what the network takes, in its order.
        dtype: data type of the mosaics it was trained on: uint8, uint16 or float32.
        threshold: on the probability, in (0, 1); frozen on validation data.
        calibration: distance to probability.
        window: side of the training crops, pixels; the window to predict with unless asked for another.
        resolution: ground size of a training pixel, metres; None = not known.
        provenance: what it was trained on and by what, for people and for the products' records; JSON.
        metrics: what it reached, by name; JSON.
        card: Markdown for a person.
        path: the file it was read from; None = not from a file.
        digest: SHA-256 of that file, hex; empty = not from a file.
    """

    state: Mapping[str, Tensor]
    architecture: AnyArchitecture
    bands: tuple[Band, ...]
    dtype: str
    threshold: float
    calibration: Calibration
    window: int = 256
    resolution: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    path: Path | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        if len(self.bands) != self.architecture.in_bands:
            raise BundleError(
                f"the network takes {self.architecture.in_bands} bands, but {len(self.bands)} are described: "
                f"{', '.join(band.name for band in self.bands)}"
            )
        if len({band.name for band in self.bands}) != len(self.bands):
            raise BundleError(f"two bands have one name: {', '.join(band.name for band in self.bands)}")
        if self.dtype not in DTYPES:
            raise BundleError(f"dtype {self.dtype!r} is none of {', '.join(DTYPES)}")
        if not (_finite(self.threshold) and 0 < self.threshold < 1):
            raise BundleError(f"threshold {self.threshold!r} does not lie between 0 and 1: it is on the probability")
        if type(self.window) is not int or self.window < 32:
            raise BundleError(f"window {self.window!r} must be 32 px or more")
        if self.resolution is not None and not (_finite(self.resolution) and self.resolution > 0):
            raise BundleError(f"ground resolution {self.resolution!r} must be a positive number of metres, or unknown")
        _check_state(self.state, self.architecture)


def bundle_path(name_or_path: str | Path) -> Path:
    """The file of a shipped bundle's name, or of a path.

    Raises:
        BundleError: no such file; for a name the message lists the names there are.
    """
    text = str(name_or_path)
    if _is_a_name(text):
        shipped = sorted(path.stem for path in BUNDLES.glob("*.safetensors"))
        if text not in shipped:
            raise BundleError(
                f"no bundle is called {text!r}: shipped are {', '.join(shipped) or 'none'}; "
                "a file's path has a directory or ends with .safetensors"
            )
        return BUNDLES / f"{text}.safetensors"
    path = Path(text)
    if not path.is_file():
        raise BundleError(f"{path}: no such file")
    return path


def portable_name(name_or_path: str) -> str:
    """The same bundle for a process that runs in another folder: a shipped name as it is, a path made absolute."""
    return name_or_path if _is_a_name(name_or_path) else str(Path(name_or_path).absolute())


def _is_a_name(text: str) -> bool:
    return Path(text).name == text and not text.endswith(".safetensors")


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Read and check a bundle: ``load_bundle("synthetic")`` or ``load_bundle("runs/mine.safetensors")``.

    Raises:
        BundleError: no such bundle, not a safetensors file (a pickle is never opened), another format version, missing
            or unexpected tensors, NaN or infinite weights, or metadata that make no sense.
    """
    path = bundle_path(name_or_path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{path} is not a readable safetensors file ({error}); a checkpoint of the DASNet authors (.pth) becomes a "
            "bundle with `dasnet import-authors`"
        ) from error
    if _KEY not in metadata:
        raise BundleError(f"{path} holds weights but no {_KEY!r} metadata: it is no bundle of this program")
    try:
        values = _parse(metadata[_KEY])
        state = {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}
        return Bundle(**values, state=state, path=path, digest=digest)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"no {error} in its metadata" if isinstance(error, KeyError) else error
        raise BundleError(f"{path}: {reason}") from error


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
    document = {
        "version": FORMAT_VERSION,
        "architecture": bundle.architecture.to_dict(),
        "bands": [asdict(band) for band in bundle.bands],
        "dtype": bundle.dtype,
        "threshold": bundle.threshold,
        "calibration": asdict(bundle.calibration),
        "window": bundle.window,
        "resolution": bundle.resolution,
        "provenance": dict(bundle.provenance),
        "metrics": dict(bundle.metrics),
        "card": bundle.card,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(document, allow_nan=False, sort_keys=True)})
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return load_bundle(path.absolute())


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
        calibration=Calibration(slope=4.0, intercept=-4.0),
        window=window,
        provenance={"weights": f"random, seed {seed}"},
        card="Random weights. The predictions mean nothing.",
    )


def _parse(text: str) -> dict[str, Any]:
    document = json.loads(text)
    version = document["version"]
    if version != FORMAT_VERSION:
        raise BundleError(
            f"format version {version!r}, but this program reads {FORMAT_VERSION}: use a matching release"
        )
    return {
        "architecture": architecture_from_dict(document["architecture"]),
        "bands": tuple(Band(**band) for band in document["bands"]),
        "dtype": document["dtype"],
        "threshold": document["threshold"],
        "calibration": Calibration(**document["calibration"]),
        "window": document["window"],
        "resolution": document["resolution"],
        "provenance": document["provenance"],
        "metrics": document["metrics"],
        "card": document["card"],
    }


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


def _stored(key: str, value: Tensor, *, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    if not (half and value.is_floating_point() and value.ndim > 1):
        return value
    narrow = value.half()
    if not torch.isfinite(narrow).all():
        raise BundleError(f"{key} reaches {float(value.abs().max()):.3g}, beyond float16: save it with half=False")
    return narrow


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _some(names: list[str]) -> str:
    listed = ", ".join(names[:_LISTED]) or "nothing"
    return listed + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")

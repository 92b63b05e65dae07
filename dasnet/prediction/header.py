"""What a bundle says of itself, read from its file without torch: all that a plan needs to know of a model.

A bundle's file is a safetensors file whose metadata has one key, ``dasnet``, with JSON: format version, architecture,
bands with their normalisation, data type, threshold, calibration, window, ground resolution, provenance, metrics and a
card; of some also what is said of their quantised graph.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from dasnet.errors import BundleError
from dasnet.networks.architectures import AnyArchitecture, architecture_from_dict
from dasnet.prediction.calibration import Calibration
from dasnet.prediction.quantised.description import QuantisedDescription
from tiling.conventions import DTYPES, lowest_changed

FORMAT_VERSION = 1
METADATA_KEY = "dasnet"
TRUSTED = "opened_with_trust"
"""Key of a provenance: the bundle was made of a file that could run code when it was read, by a person's word."""
_AS_THEY_ARE = ("dtype", "threshold", "window", "resolution", "provenance", "metrics", "card")  # fields that are JSON
BUNDLES = Path(__file__).parents[1] / "bundles"
"""Where the shipped bundles live, ``NAME.safetensors`` each."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One band the network takes: (value − mean) / std, both in the mosaic's own units, over the training pixels.

    Attributes:
        scale, offset: physical value = value · scale + offset, as the training imagery declared it; None = it did not.
    """

    name: str
    mean: float
    std: float
    scale: float | None = None
    offset: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise BundleError(f"a band has a name, not {self.name!r}")
        if not (_finite(self.mean) and _finite(self.std) and self.std > 0):
            raise BundleError(f"band {self.name}: mean {self.mean!r} must be finite and std {self.std!r} positive")
        if (self.scale is None) != (self.offset is None):
            raise BundleError(f"band {self.name} has scale {self.scale!r} and offset {self.offset!r}: both, or none")
        if self.scale is not None and not (_finite(self.scale) and self.scale and _finite(self.offset)):
            raise BundleError(f"band {self.name}: scale {self.scale!r} and offset {self.offset!r} must be finite")

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleHeader:
    """A bundle without its weights: checked when made, whether read from a file or about to be written.

    Attributes:
        architecture: which network.
        bands: what the network takes, in its order.
        dtype: data type of the mosaics it was trained on: uint8, uint16 or float32.
        threshold: on the probability, in (0, 1); frozen on validation data.
        calibration: distance to probability.
        window: side of the training crops, pixels; the window to predict with unless asked for another.
        resolution: ground size of a training pixel, metres; None = not known.
        window_overlap: pixels that neighbouring windows of that side share unless asked otherwise, as it was chosen for
            these weights; None = a quarter of the window.
        provenance: what it was trained on and by what, for people and for the products' records; JSON.
        metrics: what it reached, by name; JSON.
        card: Markdown for a person.
        quantised: the graph of integers beside the weights; None = there is none.
        path: the file it was read from; None = not from a file.
        digest: SHA-256 of that file, hex; empty = not from a file.
    """

    architecture: AnyArchitecture
    bands: tuple[Band, ...]
    dtype: str
    threshold: float
    calibration: Calibration
    window: int = 256
    resolution: float | None = None
    window_overlap: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    quantised: QuantisedDescription | None = None
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
        shared = self.window_overlap
        if shared is not None and not (type(shared) is int and 0 <= shared < self.window):
            raise BundleError(f"overlap {shared!r} of windows must be 0 px or more and less than {self.window} px")

    @property
    def cut(self) -> float:
        """The distance from on which a pixel is stored as changed: what is scored tile by tile is what is delivered."""
        return self.calibration.distance(lowest_changed(self.threshold))

    def to_json(self) -> str:
        """What stands in the file's metadata."""
        document = {
            "version": FORMAT_VERSION,
            "architecture": self.architecture.to_dict(),
            "bands": [band.to_dict() for band in self.bands],
            "calibration": asdict(self.calibration),
            **{name: getattr(self, name) for name in _AS_THEY_ARE},
            **({} if self.window_overlap is None else {"window_overlap": self.window_overlap}),
            **({} if self.quantised is None else {"quantised": self.quantised.to_dict()}),
        }
        return json.dumps(document, allow_nan=False, sort_keys=True)


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


def require_place(path: Path) -> None:
    """Refuse a path that no bundle can be written to, before anything is computed for it; raises BundleError."""
    if path.is_dir():
        raise BundleError(f"{path} is a folder: a bundle is a file, give a name in it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise BundleError(f"{path} cannot be written: {above} is no folder")


def portable_name(name_or_path: str) -> str:
    """The same bundle for a process that runs in another folder: a shipped name as it is, a path made absolute."""
    return name_or_path if _is_a_name(name_or_path) else str(Path(name_or_path).absolute())


def read_header(name_or_path: str | Path) -> BundleHeader:
    """Read and check what a bundle says of itself: that of a shipped one's name, or of a path.

    Its weights are looked at by :func:`dasnet.prediction.bundle.load_bundle` alone.

    Raises:
        BundleError: no such bundle, not a safetensors file (a pickle is never opened), another format version, or
            metadata that make no sense.
    """
    path = bundle_path(name_or_path)
    with readable(path):
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
    if METADATA_KEY not in metadata:
        raise BundleError(f"{path} holds weights but no {METADATA_KEY!r} metadata: it is no bundle of this program")
    with naming(path):
        return BundleHeader(**_parse(metadata[METADATA_KEY]), path=path, digest=digest)


def require_finite_weights(path: Path) -> None:
    """Refuse a bundle's file with weights that are NaN or infinite; raises BundleError naming them.

    Looked at without torch, so that a plan can refuse them; shapes are looked at where the network is built.
    """
    with readable(path), safe_open(path, framework="numpy") as file:
        broken = [key for key in file.keys() if not np.isfinite(file.get_tensor(key)).all()]  # noqa: SIM118
    if broken:
        raise BundleError(
            f"{path}: weights are NaN or infinite in {', '.join(broken[:8])}: the training that made them diverged"
        )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What a file that is not safetensors raises, as a BundleError that says what to do."""
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{path} is not a readable safetensors file ({error}); a checkpoint of the DASNet authors (.pth) becomes a "
            "bundle with `dasnet import-authors`"
        ) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What a bundle's content raises, as a BundleError that names its file."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"no {error} in its metadata" if isinstance(error, KeyError) else error
        raise BundleError(f"{path}: {reason}") from error


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
        "calibration": Calibration(**document["calibration"]),
        **{name: document[name] for name in _AS_THEY_ARE},
        "window_overlap": document.get("window_overlap"),
        "quantised": QuantisedDescription.from_dict(document["quantised"]) if "quantised" in document else None,
    }


def _is_a_name(text: str) -> bool:
    return Path(text).name == text and not text.endswith(".safetensors")


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

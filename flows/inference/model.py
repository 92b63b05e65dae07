"""What a plan and its products ask of a model: of a bundle, or of a method without training in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Protocol

from dasnet.networks.architectures import title_of
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.networks.imported.graph import require_runtime
from dasnet.prediction.header import TRUSTED, BundleHeader, read_header, require_finite_weights
from dasnet.prediction.quantised.description import INSTALL, INTEGERS, NOT_QUANTISED, runtime_lacks


class Model(Protocol):
    """What decides a run beside its mosaics and its grid.

    Attributes:
        kind: word by which a person calls it: bundle or method.
        band_names: names of the bands that it takes, in its order.
        dtype: type of the mosaics that it takes, by its numpy name.
        threshold: probability from which a pixel is changed, 0 … 1.
        resolution: ground size of a pixel it was made for, metres; None = any.
        window: side of a window, pixels, where the request says none.
        digest: SHA-256 of what it is, hex.
        card: description for a person, Markdown.
    """

    kind: ClassVar[str]

    @property
    def band_names(self) -> Sequence[str]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def threshold(self) -> float: ...
    @property
    def resolution(self) -> float | None: ...
    @property
    def window(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def card(self) -> str: ...

    @property
    def source(self) -> str:
        """What the probability comes from, as a product's lineage says it."""
        ...

    @property
    def lane_bytes(self) -> int:
        """Memory of one lane beside blocks and their accumulators."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know of it in each run, in sentences."""
        ...

    def overlap(self, window: int) -> int:
        """Pixels that neighbouring windows of side `window` share, where the request says none."""
        ...

    def refusal(self, window: int) -> str | None:
        """Why it cannot look at windows of side `window`, pixels; None = it can."""
        ...

    def refusal_of_precision(self, precision: str, *, window: int, on_gpu: bool) -> str | None:
        """Why it cannot compute windows of side `window`, pixels, in the precision of a request; None = it can."""
        ...

    def parameters(self, precision: str) -> Mapping[str, Any]:
        """What the probability depends on beside the digest, as JSON; `precision`: the request's."""
        ...


class BundleModel(BundleHeader):
    """A bundle as a model: a network looks at windows, a quarter of which their neighbours share."""

    kind: ClassVar[str] = "bundle"
    lane_bytes: ClassVar[int] = 0

    @property
    def band_names(self) -> list[str]:
        return [band.name for band in self.bands]

    @property
    def source(self) -> str:
        return title_of(self.architecture)

    @property
    def notes(self) -> list[str]:
        if self.provenance.get("calibrated", True):
            return self.notes_of_origin
        return [
            "the bundle is not calibrated: its probability and its threshold are a choice and no measurement; "
            "dasnet calibrate fits both to labelled samples",
            *self.notes_of_origin,
        ]

    @property
    def notes_of_origin(self) -> list[str]:
        """What a person should know of the file that it was made of, in sentences."""
        if not self.provenance.get(TRUSTED):
            return []
        return [
            f"the bundle was made of {self.provenance.get('imported_from')}, a program of torch.export that can run "
            "code when it is read: it was read once, when it was imported with --trust"
        ]

    def overlap(self, window: int) -> int:
        if self.window_overlap is not None and window == self.window:
            return self.window_overlap
        return window // 4

    def refusal(self, window: int) -> str | None:
        network = self.architecture
        return network.refusal(window) if isinstance(network, ImportedArchitecture) else None

    def refusal_of_precision(self, precision: str, *, window: int, on_gpu: bool) -> str | None:
        network = self.architecture
        if isinstance(network, ImportedArchitecture):
            return network.refusal_of_precision(precision)
        if precision != INTEGERS:
            return None
        if self.quantised is None:
            return NOT_QUANTISED
        if on_gpu:
            return "its quantised graph is computed on CPUs, not on a GPU: --precision auto or bfloat16"
        if lacking := runtime_lacks():
            return f"its quantised graph is computed by OpenVINO; not installed here: {', '.join(lacking)}; {INSTALL}"
        return self.quantised.refusal(window)

    def computes_integers(self, precision: str, *, window: int, on_gpu: bool) -> bool:
        """Whether windows of side `window`, pixels, are computed by the quantised graph on a CPU like this one."""
        if self.quantised is None or on_gpu:
            return False
        return precision == INTEGERS or (precision == "auto" and self.quantised.is_automatic(window))

    def parameters(self, precision: str) -> Mapping[str, Any]:
        return {"precision": precision}


def bundle_model(name_or_path: str) -> BundleModel:
    """The model of a shipped bundle's name, or of a path; raises BundleError for its header or its weights."""
    header = read_header(name_or_path)
    if isinstance(header.architecture, ImportedArchitecture):
        require_runtime(f"bundle {name_or_path}")
    if header.path is not None:
        require_finite_weights(header.path)
    return BundleModel(**{field.name: getattr(header, field.name) for field in fields(header)})

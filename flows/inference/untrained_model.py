"""A method without training in the place of a bundle: it takes whatever bands and values both mosaics have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from dasnet.baselines.detector import THRESHOLD
from dasnet.baselines.embeddings import EmbeddingDistance
from dasnet.baselines.methods import WITHOUT_TRAINING
from dasnet.baselines.statistics import Names
from dasnet.baselines.untrained import UntrainedMethod
from flows.run.directory import sha256_of_facts
from storage.errors import InputError

SHEET = 512
"""Side in pixels of a sheet, the unit of statistics; never that of blocks, so that no sum depends on ``--block``."""

_WINDOW = 64
"""Side of a window in pixels: blocks are multiples of it, so that no pixel is read twice where a method has no halo."""


@dataclass(frozen=True, kw_only=True)
class UntrainedModel:
    """A method without training as a model.

    Attributes:
        names: mosaics and bands, for messages.
        band_names: bands that are compared, as the first mosaic calls them.
        threshold: probability from which a pixel is changed, 0 … 1.
    """

    method: UntrainedMethod
    names: Names
    band_names: tuple[str, ...]
    dtype: str
    threshold: float = THRESHOLD
    resolution: float | None = None
    window: int = _WINDOW

    kind: ClassVar[str] = "method"

    @property
    def source(self) -> str:
        """Name and publication."""
        return f"{self.method.name}: {self.method.source}"

    @property
    def notes(self) -> tuple[str, ...]:
        """None."""
        return ()

    def refusal(self, window: int) -> None:
        """None: it looks at pixels."""

    def refusal_of_precision(self, precision: str, *, window: int, on_gpu: bool) -> None:
        """None: statistics are float64, whatever the request's precision."""

    def overlap(self, window: int) -> int:
        """Pixels that windows share, so that every pixel of a block is read with its halo."""
        return 4 * self.method.halo

    def parameters(self, precision: str) -> Mapping[str, Any]:
        """The method's own parameters; statistics are float64, whatever the request's precision."""
        return {"precision": "float64", "method": self.identity}

    @property
    def lane_bytes(self) -> int:
        """Bytes of one sheet while it is counted: both dates' values as float64, centred and weighted.

        Embeddings are counted band by band, as they are stored: read, and what is valid of them once more.
        """
        if isinstance(self.method, EmbeddingDistance):
            return 2 * SHEET * SHEET * 2 * len(self.band_names) * np.dtype(self.dtype).itemsize
        return 4 * SHEET * SHEET * 2 * len(self.band_names) * 8

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers depend on beside the pixels; JSON."""
        method = self.method
        return {"name": method.name, "version": method.version, "sheet": SHEET, **method.parameters}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of :attr:`identity`, as hex."""
        return sha256_of_facts(self.identity)

    @property
    def card(self) -> str:
        """For a person."""
        return untrained_card(self.method)


def untrained_card(method: UntrainedMethod) -> str:
    """What a method is, for a person."""
    lines = [f"  {name}: {value}" for name, value in {"version": method.version, **method.parameters}.items()]
    return "\n".join(
        [
            f"{method.name}, a method without training: {method.source}.",
            "",
            "Its statistics are those of all pixels that are valid in both mosaics. The probability p is a scale, no",
            "calibration: p / (1 − p) is the statistic divided by the method's own threshold, which so lies at 0.5.",
            "",
            *lines,
        ]
    )


def is_untrained(bundle: str) -> bool:
    """Whether a request's bundle is the name of a method without training."""
    return bundle in WITHOUT_TRAINING


def require_a_bundle(bundle: str, *, flow: str) -> None:
    """Refuse a method without training where only bundles work; raises InputError."""
    if is_untrained(bundle):
        raise InputError(
            f"{bundle} is a method without training: its statistics are those of one pair of mosaics, so it works with "
            f"`dasnet detect`; {flow} needs a bundle"
        )

"""Precomputed embeddings in the place of a network's: what a bundle says of them, read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from dasnet.networks.every_pixel import EveryPixel

Measure = Literal["cosine", "l2"]


@dataclass(frozen=True, kw_only=True)
class PrecomputedArchitecture(EveryPixel):
    """No network: the bands of a date are its embedding, a vector a pixel.

    Attributes:
        embedding: distance between two of them, each brought to length 1: "cosine" (1 − cos), or "l2"; both in [0, 2].
        in_bands: length of a vector, C.
    """

    described: ClassVar[str] = "precomputed embeddings have"

    embedding: Measure
    in_bands: int

    def __post_init__(self) -> None:
        if self.embedding not in get_args(Measure):
            raise ValueError(f"embedding {self.embedding!r} is none of {', '.join(get_args(Measure))}")
        if type(self.in_bands) is not int or self.in_bands < 2:
            raise ValueError(f"an embedding has two bands or more, not {self.in_bands!r}")

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"Precomputed embeddings of {self.in_bands} bands compared by {self.embedding}"

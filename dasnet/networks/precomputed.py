"""Precomputed embeddings in the place of a network's: what a bundle says of them, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Measure = Literal["cosine", "l2"]


@dataclass(frozen=True, kw_only=True)
class PrecomputedArchitecture:
    """No network: the bands of a date are its embedding, a vector a pixel.

    Attributes:
        embedding: distance between two of them, each brought to length 1: "cosine" (1 − cos), or "l2"; both in [0, 2].
        in_bands: length of a vector, C.
    """

    embedding: Measure
    in_bands: int

    def __post_init__(self) -> None:
        if self.embedding not in get_args(Measure):
            raise ValueError(f"embedding {self.embedding!r} is none of {', '.join(get_args(Measure))}")
        if type(self.in_bands) is not int or self.in_bands < 2:
            raise ValueError(f"an embedding has two bands or more, not {self.in_bands!r}")

    @property
    def stride(self) -> int:
        """Pixels between two positions of the distance: every pixel has one."""
        return 1

    @property
    def strides(self) -> tuple[int, ...]:
        """The same, of each distance that there is."""
        return (self.stride,)

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"Precomputed embeddings of {self.in_bands} bands compared by {self.embedding}"

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PrecomputedArchitecture:
        """What :meth:`to_dict` gave; ValueError for fields that are missing or unknown, or values that cannot be."""
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            raise ValueError(f"precomputed embeddings have {sorted(expected)}, not {sorted(values)}")
        return cls(**values)

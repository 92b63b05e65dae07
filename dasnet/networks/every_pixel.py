"""What descriptions of networks that answer for every pixel have in common; read without torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self


@dataclass(frozen=True, kw_only=True)
class EveryPixel:
    """A description of a network with one distance, at every pixel."""

    described: ClassVar[str]
    """What it describes, in a message; its fields by their names in braces."""

    @property
    def stride(self) -> int:
        """Pixels between two positions of the distance."""
        return 1

    @property
    def strides(self) -> tuple[int, ...]:
        """The same, of each distance that a loss is taken of: there is one."""
        return (self.stride,)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` gave; ValueError for fields that are missing or unknown, or values that cannot be."""
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            described = cls.described.format_map(defaultdict(lambda: None, values))
            raise ValueError(f"{described} {sorted(expected)}, not {sorted(values)}")
        return cls(**values)

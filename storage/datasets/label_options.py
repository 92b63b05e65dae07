"""What a user says about the values of label rasters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Values that a user names; a raster's nodata and what is transparent need no name."""

    changed: tuple[float, ...] = ()
    unchanged: tuple[float, ...] = ()
    ignored: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for one, other in (("changed", "unchanged"), ("changed", "ignored"), ("unchanged", "ignored")):
            if both := sorted(set(getattr(self, one)) & set(getattr(self, other))):
                raise InputError(f"--{one} and --{other} both name {both[0]:g}")

    @property
    def is_complete(self) -> bool:
        """Whether they leave nothing to guess."""
        return bool(self.changed or self.unchanged)

    @classmethod
    def of(
        cls, *, changed: Sequence[float] | None, unchanged: Sequence[float] | None, ignored: Sequence[float] | None
    ) -> LabelOptions:
        """Of what was asked; None = not said."""
        return cls(changed=tuple(changed or ()), unchanged=tuple(unchanged or ()), ignored=tuple(ignored or ()))

    def to_dict(self) -> dict[str, list[float]]:
        """What is named, ready for JSON."""
        return {name: sorted(values) for name, values in self.__dict__.items() if values}

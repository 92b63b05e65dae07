"""A quantised graph in words: read with a bundle's header, without a runtime and without the graph."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dasnet.errors import BundleError

INTEGERS = "int8"
"""The precision of a request that a quantised graph computes in."""

NOT_QUANTISED = "it has no quantised graph for --precision int8: make a bundle with one by `dasnet quantise`"

INSTALL = "install the extra: pip install 'dasnet-region[int8]'"


@dataclass(frozen=True, kw_only=True)
class QuantisedDescription:
    """What a bundle says of its quantised graph, which makes of one date what the network keeps of it.

    Attributes:
        side: side of the windows it was quantised with, pixels.
        multiple: other sides differ from that by a multiple of so many pixels; 0 = there is no other.
        answers: how many tensors it gives.
        images: from how many images its ranges are; all of a training split.
        dataset_sha256: digest of their dataset.
        topology_bytes, constants_bytes: sizes of the two parts of the graph.
        sha256: of both, hex.
        made_with: version of each library that made it.
        milliseconds: one date of `side` × `side` px on one core of the machine that made it, by precision.
    """

    side: int
    multiple: int
    answers: int
    images: int
    dataset_sha256: str
    topology_bytes: int
    constants_bytes: int
    sha256: str
    made_with: Mapping[str, str] = field(default_factory=dict)
    milliseconds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (
            ("side", 1),
            ("multiple", 0),
            ("answers", 1),
            ("images", 1),
            ("topology_bytes", 1),
            ("constants_bytes", 1),
        ):
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise ValueError(f"{name} of a quantised graph must be {least} or more, not {getattr(self, name)!r}")
        if not all(isinstance(digest, str) and digest for digest in (self.sha256, self.dataset_sha256)):
            raise ValueError(f"digests of a quantised graph must be text, not {self.sha256!r}, {self.dataset_sha256!r}")
        if not isinstance(self.made_with, Mapping) or not isinstance(self.milliseconds, Mapping):
            raise ValueError("made_with and milliseconds of a quantised graph have an entry for each name")
        for precision, duration in self.milliseconds.items():
            if not (isinstance(duration, int | float) and math.isfinite(duration) and duration > 0):
                raise ValueError(f"{precision} must take a positive number of milliseconds, not {duration!r}")

    def refusal(self, window: int) -> str | None:
        """Why windows of `window` × `window` px cannot be given to the graph; None = they can."""
        if window == self.side or (self.multiple and (window - self.side) % self.multiple == 0):
            return None
        others = f", or what lies a multiple of {self.multiple} px from it" if self.multiple else ""
        return (
            f"its quantised graph takes windows of {self.side} px{others}, not of {window} px: another --window or "
            "--precision"
        )

    @property
    def is_fastest(self) -> bool:
        """Whether integers were the fastest of all that was measured where it was made; without a measurement: no."""
        others = [duration for precision, duration in self.milliseconds.items() if precision != INTEGERS]
        return bool(others) and self.milliseconds.get(INTEGERS, math.inf) < min(others)

    def is_automatic(self, window: int) -> bool:
        """Whether --precision auto computes windows of `window` px by it on a CPU of this machine."""
        return self.is_fastest and self.refusal(window) is None and not runtime_lacks()

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {**asdict(self), "made_with": dict(self.made_with), "milliseconds": dict(self.milliseconds)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QuantisedDescription:
        """What :meth:`to_dict` gave; raises ValueError for other fields, or values that make no sense."""
        names = {entry.name for entry in fields(cls)}
        if set(values) != names:
            raise ValueError(f"a quantised graph has {sorted(names)}, not {sorted(values)}")
        return cls(**values)


def runtime_lacks() -> list[str]:
    """Packages that computing a quantised graph needs and that are not installed here; nothing is imported."""
    return _lacking("openvino")


def require_runtime(what: str) -> None:
    """Refuse `what` where no quantised graph can be computed; raises BundleError naming the extra."""
    if lacking := runtime_lacks():
        raise BundleError(f"{what} is computed by OpenVINO; not installed here: {', '.join(lacking)}; {INSTALL}")


def require_quantiser(what: str) -> None:
    """Refuse `what` where no network can be quantised; raises BundleError naming the extra."""
    if lacking := _lacking("openvino", "nncf"):
        raise BundleError(
            f"{what} is quantised by OpenVINO and NNCF; not installed here: {', '.join(lacking)}; {INSTALL}"
        )


def _lacking(*names: str) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]

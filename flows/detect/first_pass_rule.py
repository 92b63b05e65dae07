"""What a user says of a first pass: by which method it looks, and how much it leaves to the network."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

OF_IMAGERY = ("cva", "irmad", "sfa", "isfa")
OF_EMBEDDINGS = ("embedding-cosine", "embedding-l2")
METHODS = (*OF_IMAGERY, *OF_EMBEDDINGS)

USUAL_SHARE = 0.5
"""What is chosen where the user gives a method alone; benchmarks/results/2026-11-27-first-pass.md has what it costs."""

_HIGHEST = {"embedding-cosine": 2.0}
"""What a statistic cannot exceed; the others have no upper end."""

FORM = "METHOD, METHOD:SHARE% (cva:30%) or METHOD:LEVEL (embedding-cosine:0.15)"


@dataclass(frozen=True, kw_only=True)
class FirstPassRule:
    """Which cells are chosen: a share of them, or those that reach a level.

    Attributes:
        method: one of :data:`METHODS`.
        share: of the cells, 0 … 1, those that differ most; None = by the level.
        level: of the method's statistic, not negative: cosine distance, or squared length; None = by the share.
    """

    method: str
    share: float | None = None
    level: float | None = None

    @classmethod
    def of(cls, text: str) -> FirstPassRule:
        """The rule in the text of a user; raises ValueError."""
        method, separator, amount = text.partition(":")
        if method not in METHODS:
            raise ValueError(f"--first-pass {text!r}: {method!r} is none of {', '.join(METHODS)}")
        if not separator:
            return cls(method=method, share=USUAL_SHARE)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", amount)
        if match is None:
            raise ValueError(f"--first-pass {text!r}: {amount!r} is no share and no level; it takes {FORM}")
        value = float(match[1])
        if not match[2]:
            if value > (highest := _HIGHEST.get(method, sys.float_info.max)):
                raise ValueError(
                    f"--first-pass {text!r}: {method} is {highest:g} at most, so that no cell would be computed; a "
                    f"share of the cells has a %: {method}:{amount}%"
                )
            return cls(method=method, level=value)
        if not 0 < value <= 100:
            raise ValueError(f"--first-pass {text!r}: a share is more than 0 % and at most 100 %")
        return cls(method=method, share=value / 100)

    @property
    def takes_mosaics(self) -> bool:
        """Whether it looks at mosaics of its own, and not at the pair."""
        return self.method in OF_EMBEDDINGS

    @property
    def words(self) -> str:
        """Which cells are chosen, for a person."""
        if self.level is not None:
            return f"cells whose statistic by {self.method} reaches {self.level:g}"
        return f"the {100 * (self.share or 0):g} % of the cells that differ most by {self.method}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for the key of a run."""
        amount = {"level": self.level} if self.share is None else {"share": self.share}
        return {"method": self.method, **amount}

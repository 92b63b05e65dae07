"""What a method without training is: passes over all pixel pairs, each made of sums, then a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dasnet.baselines.detector import Detector
from dasnet.baselines.statistics import Names, Tally


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What is known after some passes; it travels to workers and into a file.

    Attributes:
        finished: no further pass is wanted.
        values: arrays of the method, float64.
        notes: a line a pass, for a person.
    """

    finished: bool = False
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def passes(self) -> int:
        """Passes done."""
        return len(self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, exact to the last bit."""
        values = {name: np.asarray(value).tolist() for name, value in self.values.items()}
        return {"finished": self.finished, "values": values, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> State:
        """What :meth:`to_dict` made."""
        values = {name: np.array(value, dtype=np.float64) for name, value in stored["values"].items()}
        return cls(finished=stored["finished"], values=values, notes=tuple(stored["notes"]))


class UntrainedMethod(Protocol):
    """One method. Pure numbers: who reads the pixels, and where, is the caller's business.

    Attributes:
        name: as the user asks for it.
        version: goes up when the same pixels would get other numbers.
        source: the paper.
        halo: as of its detector.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def source(self) -> str: ...

    @property
    def halo(self) -> int: ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Everything beside the version that decides its numbers; JSON."""
        ...

    def count(self, state: State, before: NDArray[Any], after: NDArray[Any], valid: NDArray[np.bool_]) -> Tally:
        """What the next pass counts on one sheet.

        Args:
            state: before the pass; ``State()`` before the first.
            before, after: (C, h, w), any type; the sheet starts at a multiple of four rows and columns of the grid.
            valid: (h, w), True = there in both dates.
        """
        ...

    def advance(self, state: State, tally: Tally, names: Names) -> State:
        """The state after a pass over all sheets.

        Raises:
            DegenerateStatisticsError: the statistics say nothing; the message names bands and mosaics.
        """
        ...

    def detector(self, state: State) -> Detector:
        """What a finished state detects change by."""
        ...

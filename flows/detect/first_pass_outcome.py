"""What a first pass has spared, as products tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.detect.first_pass import Choice, read_choice
from flows.run.directory import RunDirectory
from storage.errors import InputError
from storage.places.bucket import Location
from tiling.conventions import NODATA, PASSED_OVER


@dataclass(frozen=True, kw_only=True)
class FirstPassOutcome:
    """A choice, and how many of the valid pixels it left out.

    Attributes:
        passed_over, valid: pixels that the network did not look at, of those that are valid at both dates.
    """

    choice: Choice
    passed_over: int
    valid: int

    @classmethod
    def of(cls, directory: RunDirectory[Location], histogram: NDArray[np.int64]) -> FirstPassOutcome:
        """`histogram`: (256,) pixels of each stored level; raises InputError where the choice is gone."""
        choice = read_choice(directory)
        if choice is None:
            raise InputError(
                f"{directory.path} has no record any more of what its first pass chose: choose another --output"
            )
        valid = int(histogram[:NODATA].sum())
        return cls(choice=choice, passed_over=int(histogram[PASSED_OVER]), valid=valid)

    @property
    def share(self) -> float:
        """Share of the valid pixels that were passed over, 0 … 1."""
        return self.passed_over / max(self.valid, 1)

    @property
    def facts(self) -> dict[str, Any]:
        """For the STAC item."""
        return {
            **self.choice.facts,
            "passed_over_level": PASSED_OVER,
            "passed_over_pixels": self.passed_over,
            "passed_over_share": round(self.share, 6),
        }

    @property
    def words(self) -> str:
        """For a person."""
        return f"{self.share:.2%} of what is valid was passed over and counts as unchanged; {self.choice.words}"

    @property
    def card(self) -> tuple[str, str, str]:
        """Of the report."""
        return "Passed over", f"{self.share:.2%}", "of what is valid: the first pass gave it to no network"

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Of the report's table."""
        level = "none, no cell could be judged" if self.choice.level is None else f"{self.choice.level:.6g}"
        return [
            ("rule", self.choice.rule),
            ("level of the statistic", level),
            ("cells chosen", f"{self.choice.chosen:,} of {len(self.choice.cells.lattice):,}"),
            ("cells without a pixel to judge by", f"{self.choice.unjudged:,}"),
            ("pixels passed over", f"{self.passed_over:,}, stored as level {PASSED_OVER}; computed ones have 1 … 254"),
        ]

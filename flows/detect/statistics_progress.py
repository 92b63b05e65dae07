"""How far the statistics of a method without training are, in its run directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dasnet.baselines.untrained import State
from flows.detect.directory import STATISTICS
from flows.inference.untrained_model import SHEET
from flows.run.directory import RunDirectory
from storage.errors import InputError
from storage.places.bucket import Location
from storage.places.publish import write_json_atomically
from tiling.grid import BlockGrid


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the statistics are.

    Attributes:
        state: sums and results after the passes that are done.
        threshold: threshold of the statistic, for a person; empty until the last pass is done.
    """

    state: State
    threshold: str


def sheets_of(*, height: int, width: int) -> BlockGrid:
    """The sheets of a grid of so many pixels."""
    return BlockGrid(height=height, width=width, size=SHEET)


def pass_name(number: int, prefix: str = "statistics") -> str:
    """Name of a pass and of its ledger; `number`: from 1."""
    return f"{prefix}-{number}"


def read_progress(directory: RunDirectory[Location], file: str = STATISTICS) -> Progress:
    """How far the statistics of a run are, or those that another file of its directory holds.

    Raises:
        InputError: the file is damaged.
    """
    path = directory.at(file)
    if not path.exists():
        return Progress(state=State(), threshold="")
    try:
        stored = json.loads(path.read_text())
        return Progress(state=State.from_dict(stored["state"]), threshold=str(stored["threshold"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): delete it, the statistics are then made anew") from error


def write_progress(
    directory: RunDirectory[Location], progress: Progress, method: Mapping[str, Any], file: str = STATISTICS
) -> None:
    """Record how far the statistics are after a pass; `method`: its identity, for a reader of the file."""
    write_json_atomically(
        directory.at(file),
        {"method": dict(method), "threshold": progress.threshold, "state": progress.state.to_dict()},
    )

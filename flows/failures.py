"""How a run says that blocks are missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from storage.places.bucket import Location

_SHOWN = 20


def _listed(failed: Mapping[str, object], *, where_all_are: str = "") -> str:
    lines = [f"  {name}: {why}" for name, why in list(failed.items())[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"  … and {len(failed) - _SHOWN} more{where_all_are}")
    return "\n".join(lines)


class FailedCellsError(RuntimeError):
    """The other cells are finished; the message lists the failed ones.

    Attributes:
        failed: what ended each cell, by its name.
    """

    def __init__(self, failed: Mapping[str, Exception], *, total: int, directory: Location) -> None:
        self.failed = dict(failed)
        super().__init__(
            f"{len(failed)} of {total} cells failed; the others are finished and kept in {directory}:\n"
            f"{_listed(failed)}"
        )


class FailedBlocksError(RuntimeError):
    """All other blocks are finished; the message lists the quarantined ones.

    Attributes:
        failed: error of each quarantined block, by its name.
    """

    def __init__(
        self, failed: Mapping[str, str], *, total: int, directory: Location, again: str = "with --retry-failed"
    ) -> None:
        self.failed = dict(failed)
        super().__init__(
            f"{len(failed)} of {total} blocks failed; the others are finished and kept in {directory}:\n"
            f"{_listed(failed, where_all_are=f': dasnet status {directory}')}\n"
            f"Mend the cause and run the same command {again}."
        )


class FailedMethodsError(RuntimeError):
    """Some trainings or methods of a comparison failed; the message lists them, the others are in its tables.

    Attributes:
        failed: why, by name.
    """

    def __init__(self, failed: Mapping[str, str], *, report: Path) -> None:
        self.failed = dict(failed)
        super().__init__(f"{len(failed)} failed; what the others found is in {report}:\n{_listed(failed)}")


def reason_of(error: BaseException) -> str:
    """What ended a part of the work, for a person: our own errors say it, others with their kind."""
    return str(error) if isinstance(error, ValueError | ArithmeticError) else f"{type(error).__name__}: {error}"

"""What a command refuses, which errors are a user's to mend, and with which exit code they end.

Nothing heavy is imported here: also a command that computes nothing must be able to name what went wrong.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from dasnet.errors import (
    BundleError,
    DegenerateStatisticsError,
    EncoderError,
    NonFiniteLossError,
    PredictorError,
    TrainingError,
)
from storage.errors import InputError, IntegrityError, ObjectStoreError, TakenOverError
from storage.places.bucket import Location
from tiling.errors import ClusterLostError, UnlikeWorkerError
from tiling.plan import RefusedPlanError


class ClusterError(ValueError):
    """The cluster that was asked for cannot be had here."""


class CertificateError(ValueError):
    """Certificates that are missing, do not fit together, or have expired."""


class PrefectServerError(RuntimeError):
    """The embedded server did not start, or the configured one does not answer."""


class PrefectHomeError(PrefectServerError):
    """Prefect's folder of this user cannot be had or written."""


class SecretError(ValueError):
    """A secret is missing, badly formed, or lies where others can read it."""


class PlanningError(RuntimeError):
    """A job cannot be planned, for a reason that none of our own errors names; its cause is what was raised."""


_SHOWN = 20


class FailedPartsError(RuntimeError):
    """Parts of a job failed, all others are finished; the message lists the failed ones.

    Attributes:
        failed: what ended each part, by its name.
    """

    def __init__(
        self, heading: str, failed: Mapping[str, object], *, where_all_are: str = "", advice: str = ""
    ) -> None:
        self.failed = dict(failed)
        lines = [f"{heading}:", *(f"  {name}: {why}" for name, why in list(failed.items())[:_SHOWN])]
        if len(failed) > _SHOWN:
            lines.append(f"  … and {len(failed) - _SHOWN} more{where_all_are}")
        super().__init__("\n".join([*lines, *filter(None, [advice])]))


class FailedCellsError(FailedPartsError):
    """Cells of an archive failed."""

    def __init__(self, failed: Mapping[str, Exception], *, total: int, directory: Location) -> None:
        heading = f"{len(failed)} of {total} cells failed; the others are finished and kept in {directory}"
        super().__init__(heading, failed)


class BrokenDatesError(FailedPartsError):
    """Dates of an archive cannot be read; pairs of all others are finished."""

    def __init__(self, broken: Mapping[date, str], *, dates: int, directory: Location) -> None:
        super().__init__(
            f"{len(broken)} date{'s' * (len(broken) != 1)} cannot be read; the {dates} others are finished and kept in "
            f"{directory}",
            {str(day): why for day, why in broken.items()},
            advice="Mend the files and run the same command again: it tries these dates anew.",
        )


class FailedBlocksError(FailedPartsError):
    """Blocks are in quarantine."""

    def __init__(
        self, failed: Mapping[str, str], *, total: int, directory: Location, again: str = "with --retry-failed"
    ) -> None:
        super().__init__(
            f"{len(failed)} of {total} blocks failed; the others are finished and kept in {directory}",
            failed,
            where_all_are=f": dasnet status {directory}",
            advice=f"Mend the cause and run the same command {again}.",
        )


class FailedMethodsError(FailedPartsError):
    """Trainings or methods of a comparison failed; the others are in its tables."""

    def __init__(self, failed: Mapping[str, str], *, report: Path) -> None:
        super().__init__(f"{len(failed)} failed; what the others found is in {report}", failed)


def reason_of(error: BaseException) -> str:
    """What ended a part of the work, for a person: our own errors say it, others with their kind."""
    return str(error) if isinstance(error, ValueError | ArithmeticError) else f"{type(error).__name__}: {error}"


REFUSALS: tuple[type[Exception], ...] = (
    InputError,
    BundleError,
    DegenerateStatisticsError,
    EncoderError,
    PredictorError,
    TrainingError,
    RefusedPlanError,
    ClusterError,
    CertificateError,
    PrefectServerError,
    SecretError,
    PlanningError,
)
"""Errors before anything was computed: exit code 2."""

UNFINISHED: tuple[type[Exception], ...] = (
    FailedPartsError,
    ClusterLostError,
    UnlikeWorkerError,
    IntegrityError,
    ObjectStoreError,
    TakenOverError,
    NonFiniteLossError,
)
"""Errors that name what is missing of a result: exit code 1; what is finished is kept."""

STORAGE_GAVE_OUT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO})
"""Numbers of an OSError that is the disk's fault; it ends a command as :data:`UNFINISHED` does."""

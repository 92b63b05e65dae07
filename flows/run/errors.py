"""What a command refuses, which errors are a user's to mend, and with which exit code they end.

Nothing heavy is imported here: also a command that computes nothing must be able to name what went wrong.
"""

from __future__ import annotations

import errno

from dasnet.errors import BundleError, DegenerateStatisticsError, NonFiniteLossError, PredictorError, TrainingError
from flows.failures import FailedBlocksError, FailedCellsError, FailedMethodsError
from storage.errors import InputError, IntegrityError, ObjectStoreError, TakenOverError
from tiling.errors import ClusterLostError, UnlikeWorkerError
from tiling.plan import RefusedPlanError


class ClusterError(ValueError):
    """The cluster that was asked for cannot be had here."""


class CertificateError(ValueError):
    """Certificates that are missing, do not fit together, or have expired."""


class PrefectServerError(RuntimeError):
    """The embedded server did not start, or the configured one does not answer."""


class SecretError(ValueError):
    """A secret is missing, badly formed, or lies where others can read it."""


REFUSALS: tuple[type[Exception], ...] = (
    InputError,
    BundleError,
    DegenerateStatisticsError,
    PredictorError,
    TrainingError,
    RefusedPlanError,
    ClusterError,
    CertificateError,
    PrefectServerError,
    SecretError,
)
"""Nothing was computed: exit code 2."""

UNFINISHED: tuple[type[Exception], ...] = (
    FailedBlocksError,
    FailedCellsError,
    FailedMethodsError,
    ClusterLostError,
    UnlikeWorkerError,
    IntegrityError,
    ObjectStoreError,
    TakenOverError,
    NonFiniteLossError,
)
"""Something is missing and was named: exit code 1; what is finished is kept."""

STORAGE_GAVE_OUT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO})
"""Numbers of an OSError that is the disk's fault: as :data:`UNFINISHED`."""

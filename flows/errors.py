"""Which errors are a user's to mend, and with which exit code they end."""

from __future__ import annotations

import errno

from dasnet.errors import BundleError, DegenerateStatisticsError, NonFiniteLossError, PredictorError, TrainingError
from flows.certificates import CertificateError
from flows.cluster import ClusterError
from flows.failures import FailedBlocksError, FailedCellsError, FailedMethodsError
from flows.prefect_server import PrefectServerError
from flows.secret_files import SecretError
from storage.errors import InputError, IntegrityError, ObjectStoreError, TakenOverError
from tiling.execute import ClusterLostError, UnlikeWorkerError
from tiling.plan import RefusedPlanError

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

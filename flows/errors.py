"""Which errors are a user's to mend, and with which exit code they end."""

from __future__ import annotations

import errno

from dasnet.errors import BundleError, NonFiniteLossError, TrainingError
from flows.cluster import ClusterError
from flows.failures import FailedBlocksError, FailedCellsError
from flows.prefect_server import PrefectServerError
from storage.errors import InputError, IntegrityError, ObjectStoreError, TakenOverError
from tiling.execute import ClusterLostError
from tiling.plan import RefusedPlanError

REFUSALS: tuple[type[Exception], ...] = (
    InputError,
    BundleError,
    TrainingError,
    RefusedPlanError,
    ClusterError,
    PrefectServerError,
)
"""Nothing was computed: exit code 2."""

UNFINISHED: tuple[type[Exception], ...] = (
    FailedBlocksError,
    FailedCellsError,
    ClusterLostError,
    IntegrityError,
    ObjectStoreError,
    TakenOverError,
    NonFiniteLossError,
)
"""Something is missing and was named: exit code 1; what is finished is kept."""

STORAGE_GAVE_OUT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO})
"""Numbers of an OSError that is the disk's fault: as :data:`UNFINISHED`."""

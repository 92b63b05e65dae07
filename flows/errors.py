"""Which errors are a user's to mend, and with which exit code they end."""

from __future__ import annotations

from dasnet.errors import BundleError
from flows.cluster import ClusterError
from flows.failures import FailedBlocksError
from storage.errors import InputError, IntegrityError
from tiling.execute import ClusterLostError
from tiling.plan import RefusedPlanError

REFUSALS: tuple[type[Exception], ...] = (InputError, BundleError, RefusedPlanError, ClusterError)
"""Nothing was computed: exit code 2."""

UNFINISHED: tuple[type[Exception], ...] = (FailedBlocksError, ClusterLostError, IntegrityError)
"""Something is missing and was named: exit code 1; what is finished is kept."""

"""What ends a fan-out."""


class ClusterLostError(RuntimeError):
    """The cluster is gone: the scheduler closed the connection, or no worker has come back in time."""


class UnlikeWorkerError(RuntimeError):
    """A worker computes otherwise than those that began the run, so its blocks would not fit theirs."""

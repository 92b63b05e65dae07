"""How many workers and lanes a cluster has, or will have."""

from __future__ import annotations

from dataclasses import dataclass

from flows.cluster.config import ClusterConfig
from flows.run.machine import cores


@dataclass(frozen=True, kw_only=True)
class ClusterLayout:
    """How many worker processes there are, and how many blocks compute at a time in each of them."""

    workers: int
    lanes: int

    @property
    def computing(self) -> int:
        """Blocks that compute at a time in the whole cluster."""
        return self.workers * self.lanes


def local_layout(config: ClusterConfig, *, blocks: int | None = None) -> ClusterLayout:
    """Workers and lanes of a local CPU cluster: all cores are used, whichever of the two the user left open.

    Args:
        blocks: number of blocks, None = not known yet; no worker is started that would have none.
    """
    available = cores()
    if config.workers is None:
        workers = available if available <= 4 else max(1, available // 4)
        if config.lanes is not None:
            workers = max(1, available // config.lanes)
        workers = min(workers, blocks or workers)
    else:
        workers = config.workers
    return ClusterLayout(workers=workers, lanes=config.lanes or max(1, available // workers))


def planned_layout(config: ClusterConfig, *, blocks: int | None = None) -> ClusterLayout:
    """Workers and lanes as far as they are known before anything runs: a scheduler may get more.

    Args:
        blocks: as in :func:`local_layout`.

    Raises:
        ClusterError, CertificateError: the cluster cannot be had.
    """
    if config.kind == "local":
        return local_layout(config, blocks=blocks)
    from flows.cluster.connect import reach

    return reach(config)

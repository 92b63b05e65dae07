"""A Dask client from a :class:`~flows.config.ClusterConfig`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import dask
from distributed import Client, LocalCluster

from flows.config import ClusterConfig


class ClusterError(ValueError):
    """The cluster that was asked for cannot be had here."""


@dataclass(frozen=True, kw_only=True)
class ClusterLayout:
    """How many worker processes there are, and how many blocks compute at a time in each of them."""

    workers: int
    lanes: int

    @property
    def computing(self) -> int:
        """Blocks that compute at a time in the whole cluster."""
        return self.workers * self.lanes


# A predictor on CPU computes with one thread, so that its bits do not depend on the number of cores; the cores are
# used by that many lanes. The libraries read these before they are imported, hence the environment.
_WORKER_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "GDAL_NUM_THREADS": "1",
}

_PATIENCE = "20s"
"""Until a scheduler must answer."""

_CLOSING_S = 30.0
"""For the workers to end by themselves; what is left then ends with this process."""

_SETTINGS = {
    # one death of a worker is bad luck; a block in whose company two died is a suspect (tiling.execute)
    "distributed.scheduler.allowed-failures": 1,
    "distributed.scheduler.worker-ttl": "5 minutes",
    # blocks are big and few: let a worker take one more than it has lanes, never hoard
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.work-stealing": False,
    "distributed.worker.lifetime.restart": True,
    # a terminal sends Ctrl-C to workers too; the command ends them when it has taken its blocks back
    "distributed.worker.preload": ["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
    # what watches a worker takes its threads' time: a profiler that samples a hundred times a second (the ledger says
    # where the time goes), clocks that tick fifty times
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.admin.log-format": "%(asctime)s %(name)s %(levelname)s %(message)s",
}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_layout(config: ClusterConfig) -> ClusterLayout:
    """Workers and lanes of a local CPU cluster: all cores are used, whatever part of the question is left open."""
    available = cores()
    if config.workers is None:
        workers = available if available <= 4 else max(1, available // 4)
        if config.lanes is not None:
            workers = max(1, available // config.lanes)
    else:
        workers = config.workers
    return ClusterLayout(workers=workers, lanes=config.lanes or max(1, available // workers))


def require_cluster(config: ClusterConfig) -> None:
    """Whether the cluster can be had, before anything is written.

    Raises:
        ClusterError: no such scheduler, no GPU, or dask-cuda is not installed.
    """
    if config.kind == "cuda":
        try:
            from dask_cuda.utils import get_n_gpus
        except ImportError as error:
            raise ClusterError(
                f"--cluster cuda needs dask-cuda, which is not installed ({error}): "
                "pip install -r requirements-cuda.lock"
            ) from error
        try:
            found = get_n_gpus()
        except Exception as error:  # pynvml raises many types where there is no driver or no device
            raise ClusterError(
                f"--cluster cuda found no usable GPU ({type(error).__name__}: {error}): use --cluster local"
            ) from error
        if not found:
            raise ClusterError("--cluster cuda found no GPU (nvidia-smi, CUDA_VISIBLE_DEVICES): use --cluster local")
    elif config.kind != "local":
        _client(config.kind).close()


@contextmanager
def several_at_a_time() -> Iterator[None]:
    """Let flows in threads each have a local cluster: Dask's settings are the process's, and whoever ends first puts
    back what it found, which must be what the others need."""
    with dask.config.set({**_SETTINGS, "distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT}):
        yield


@contextmanager
def connect(config: ClusterConfig) -> Iterator[tuple[Client, ClusterLayout]]:
    """Start or join the cluster; leave it, and stop what was started, at the end.

    Raises:
        ClusterError: no such scheduler, or it has no worker.
    """
    for noisy in ("distributed.nanny", "distributed.core", "distributed.scheduler", "distributed.worker.memory"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with dask.config.set(_SETTINGS):
        if config.kind == "local":
            yield from _local(config)
        elif config.kind == "cuda":
            yield from _cuda(config)
        else:
            yield from _existing(config)


@contextmanager
def closed_in_time(cluster: LocalCluster) -> Iterator[None]:
    """Close a cluster at the end, but never wait for ever: a worker that dies while it starts is waited for in vain."""
    try:
        yield
    finally:
        with suppress(TimeoutError):
            cluster.close(timeout=_CLOSING_S)


def _local(config: ClusterConfig) -> Iterator[tuple[Client, ClusterLayout]]:
    layout = local_layout(config)
    with dask.config.set({"distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT}):
        cluster = LocalCluster(
            n_workers=layout.workers,
            threads_per_worker=layout.lanes + 1,  # one more, to read and write while the lanes compute
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        )
        with closed_in_time(cluster), Client(cluster) as client:
            yield client, layout


def _cuda(config: ClusterConfig) -> Iterator[tuple[Client, ClusterLayout]]:
    from dask_cuda import LocalCUDACluster

    lanes = config.lanes or 1
    cluster = LocalCUDACluster(
        n_workers=config.workers,
        threads_per_worker=lanes + 2,  # reading the next block and writing the last one beside the device's
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    )
    with closed_in_time(cluster), Client(cluster) as client:
        yield client, ClusterLayout(workers=len(client.scheduler_info(n_workers=-1)["workers"]), lanes=lanes)


def _client(address: str) -> Client:
    try:
        return Client(address, timeout=_PATIENCE)
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise ClusterError(f"no Dask scheduler answers at {address}: {error}") from error


def _existing(config: ClusterConfig) -> Iterator[tuple[Client, ClusterLayout]]:
    with _client(config.kind) as client:
        try:
            client.wait_for_workers(1, timeout=60)
        except TimeoutError as error:
            raise ClusterError(f"the Dask scheduler at {config.kind} has no worker") from error
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        threads = min(worker["nthreads"] for worker in workers)
        lanes = config.lanes or max(1, threads - 1)
        yield client, ClusterLayout(workers=len(workers), lanes=lanes)

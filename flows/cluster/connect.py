"""A Dask client from a :class:`~flows.run.fields.ClusterConfig`."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster

from flows.cluster.certificates import Certificates, configured_security
from flows.run.errors import CertificateError, ClusterError
from flows.run.fields import ClusterConfig
from flows.run.machine import cores
from tiling.errors import ClusterLostError
from tiling.execute import workers_of


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
WORKER_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    # Training asks for more. On a machine that has other work, threads that spin at every barrier for one that is not
    # running wait ten times as long as they compute; after this count they sleep.
    "GOMP_SPINCOUNT": "10000",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "GDAL_NUM_THREADS": "1",
}

_PATIENCE = "20s"
"""Until a scheduler must answer."""

_WORKERS_PATIENCE_S = 300.0
"""Until a running scheduler must have the workers that are waited for."""

_CLOSING_S = 30.0
"""For the workers to end by themselves; what is left then ends with this process."""

SETTINGS = {
    # one death of a worker is bad luck; a block in whose company two died is a suspect (tiling.execute)
    "distributed.scheduler.allowed-failures": 1,
    # A host that is cut off answers no keepalive probe: after `tcp` its connections are dead and its blocks go to
    # others. A host that answers while its worker does not is given up after `worker-ttl`.
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.comm.timeouts.connect": "30s",
    "distributed.scheduler.worker-ttl": "5 minutes",
    # blocks are big and few: let a worker take one more than it has lanes, never hoard
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.work-stealing": False,
    "distributed.worker.lifetime.restart": True,
    # a local cluster closes the nanny of a worker that is not back by then: on a busy machine a restart takes minutes
    "distributed.deploy.lost-worker-timeout": "10 minutes",
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
"""Dask's settings for a run. Schedulers and workers that others start have them from ``deploy/dask/dasnet.yaml``."""


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


def planned_layout(config: ClusterConfig) -> ClusterLayout:
    """Workers and lanes as far as they are known before anything runs: a scheduler may get more.

    Raises:
        ClusterError, CertificateError: as :func:`require_cluster`.
    """
    if config.kind == "local":
        return local_layout(config)
    if config.kind == "cuda":
        from dask_cuda.utils import get_n_gpus

        return ClusterLayout(workers=config.workers or get_n_gpus(), lanes=config.lanes or 1)
    with _client(config) as client:
        return _joined_layout(client, config)


def require_cluster(config: ClusterConfig) -> None:
    """Whether the cluster can be had, before anything is written.

    Raises:
        ClusterError: no such scheduler, no GPU, dask-cuda or what it was asked for is not installed.
        CertificateError: a ``tls://`` address without certificates that hold.
    """
    if config.kind == "cuda":
        _require_gpus(config)
    elif config.is_running:
        _client(config).close()


def _require_gpus(config: ClusterConfig) -> None:
    try:
        from dask_cuda.utils import get_n_gpus
    except ImportError as error:
        raise ClusterError(
            f"--cluster cuda needs dask-cuda, which is not installed ({error}): pip install -r requirements-cuda.lock"
        ) from error
    for asked, module, package in (
        (config.protocol == "ucx", "distributed_ucxx", "distributed-ucxx-cu13"),
        (config.rmm_pool is not None, "rmm", "rmm-cu13"),
    ):
        if asked and find_spec(module) is None:
            raise ClusterError(f"{module} is not installed, which this cluster was asked to use: pip install {package}")
    try:
        found = get_n_gpus()
    except Exception as error:  # pynvml raises many types where there is no driver or no device
        raise ClusterError(
            f"--cluster cuda found no usable GPU ({type(error).__name__}: {error}): use --cluster local"
        ) from error
    if not found:
        raise ClusterError("--cluster cuda found no GPU (nvidia-smi, CUDA_VISIBLE_DEVICES): use --cluster local")
    if config.workers is not None and config.workers > found:
        raise ClusterError(f"--workers {config.workers}, one a GPU, but this machine shows {found}")


@contextmanager
def several_at_a_time() -> Iterator[None]:
    """Let flows in threads each have a local cluster: Dask's settings are the process's, and whoever ends first puts
    back what it found, which must be what the others need."""
    with dask.config.set({**SETTINGS, "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}):
        yield


@dataclass(frozen=True, kw_only=True)
class LentWorker:
    """One worker of a cluster that is there already, for a flow that runs beside others on it."""

    client: Client
    layout: ClusterLayout
    address: str


_lent: ContextVar[LentWorker | None] = ContextVar("lent_worker", default=None)


def lent_worker() -> LentWorker | None:
    """What :func:`lending` gave, if anything."""
    return _lent.get()


@contextmanager
def lending(worker: LentWorker) -> Iterator[None]:
    """Let flows called inside find that cluster where they would connect to theirs, and train on that worker."""
    token = _lent.set(worker)
    try:
        yield
    finally:
        _lent.reset(token)


class FreeWorkers:
    """The workers of a cluster, each for one flow at a time. Several threads take from it."""

    def __init__(self, client: Client, layout: ClusterLayout) -> None:
        self._client, self._layout = client, layout
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[LentWorker]:
        """A worker that is alive and that nobody else has.

        Raises:
            ClusterLostError: there was none for a while.
        """
        until = time.monotonic() + _WORKERS_PATIENCE_S
        while (address := self._take()) is None:
            if time.monotonic() > until:
                raise ClusterLostError(f"no worker of the cluster was free for {_WORKERS_PATIENCE_S:.0f} s")
            time.sleep(1.0)
        try:
            yield LentWorker(client=self._client, layout=self._layout, address=address)
        finally:
            with self._lock:
                self._taken.discard(address)

    def _take(self) -> str | None:
        with self._lock:
            free = sorted(set(workers_of(self._client)) - self._taken)
            self._taken.update(free[:1])
            return free[0] if free else None


@contextmanager
def connect(config: ClusterConfig, *, workers_stay: bool = False) -> Iterator[tuple[Client, ClusterLayout]]:
    """Start or join the cluster; leave it, and stop what was started, at the end.

    Args:
        workers_stay: do not replace workers after ``worker_hours``: a task is as long as the flow.

    Raises:
        ClusterError: no such scheduler, or it has too few workers.
        CertificateError: a ``tls://`` address without certificates that hold.
    """
    if (worker := lent_worker()) is not None:
        yield worker.client, worker.layout
        return
    for noisy in ("distributed.nanny", "distributed.core", "distributed.scheduler", "distributed.worker.memory"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    settings = {**SETTINGS, **({} if workers_stay else _lifetime(config))}
    with dask.config.set(settings):
        if config.kind == "local":
            yield from _local(config)
        elif config.kind == "cuda":
            yield from _cuda(config)
        else:
            yield from _running(config)


def _lifetime(config: ClusterConfig) -> dict[str, str]:
    seconds = 3600 * config.worker_hours
    return {
        "distributed.worker.lifetime.duration": f"{seconds}s",
        # not all at once
        "distributed.worker.lifetime.stagger": f"{seconds / 10}s",
    }


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
    with dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}):
        cluster = LocalCluster(
            n_workers=layout.workers,
            threads_per_worker=layout.lanes + 1,  # one more, to read and write while the lanes compute
            processes=True,
            memory_limit=config.memory_limit or "auto",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        )
        with closed_in_time(cluster), Client(cluster, set_as_default=False) as client:
            yield client, layout


def _cuda(config: ClusterConfig) -> Iterator[tuple[Client, ClusterLayout]]:
    from dask_cuda import LocalCUDACluster

    lanes = config.lanes or 1
    cluster = LocalCUDACluster(**cuda_options(config), host="127.0.0.1", dashboard_address="127.0.0.1:0")
    with closed_in_time(cluster), Client(cluster, set_as_default=False) as client:
        yield client, ClusterLayout(workers=len(workers_of(client)), lanes=lanes)


def cuda_options(config: ClusterConfig) -> dict[str, Any]:
    """What dask-cuda's cluster is told."""
    return {
        "n_workers": config.workers,
        "threads_per_worker": (config.lanes or 1) + 2,  # the next block is read, the last one written meanwhile
        "memory_limit": config.memory_limit or "auto",
        "protocol": config.protocol,
        "rmm_pool_size": config.rmm_pool,
        # without it torch would allocate beside the pool, from what the pool has left
        "rmm_allocator_external_lib_list": None if config.rmm_pool is None else ["torch"],
    }


def _client(config: ClusterConfig) -> Client:
    address = scheduler_address(config.kind)
    security = None if config.certificates is None else Certificates(config.certificates).security("client")
    security = security or configured_security()
    if address.startswith("tls://") and security is None:
        raise CertificateError(
            f"{address} needs certificates: give --certificates DIR, a folder with ca.pem, client.pem and "
            "client-key.pem of `dasnet certs`"
        )
    if security is not None and not address.startswith("tls://"):
        raise CertificateError(
            f"certificates are given, but the scheduler is at {address}, which is open to read: start it with them, "
            "and give its tls:// address"
        )
    try:
        return Client(address, timeout=_PATIENCE, security=security, set_as_default=False)
    except (OSError, TimeoutError, ValueError, RuntimeError, FutureWarning) as error:
        raise ClusterError(f"no Dask scheduler answers at {address}: {error}") from error


def scheduler_address(kind: str) -> str:
    """The address itself, or what a scheduler's file says.

    Raises:
        ClusterError: no such file, or it is none of a scheduler's.
    """
    if "://" in kind:
        return kind
    try:
        address = json.loads(Path(kind).read_text())["address"]
    except OSError as error:
        raise ClusterError(
            f"{kind} cannot be read ({error.strerror}): a scheduler that was started with --scheduler-file writes it, "
            "and takes it away when it ends"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{kind} was not written by a Dask scheduler ({error!r})") from error
    return str(address)


def _running(config: ClusterConfig) -> Iterator[tuple[Client, ClusterLayout]]:
    wanted = config.workers or 1
    with _client(config) as client:
        try:
            client.wait_for_workers(wanted, timeout=_WORKERS_PATIENCE_S)
        except TimeoutError as error:
            found = len(workers_of(client))
            raise ClusterError(
                f"the Dask scheduler at {scheduler_address(config.kind)} has {found} of {wanted} workers after "
                f"{_WORKERS_PATIENCE_S:.0f} s"
            ) from error
        yield client, _joined_layout(client, config)


def _joined_layout(client: Client, config: ClusterConfig) -> ClusterLayout:
    workers = workers_of(client).values()
    threads = min((worker["nthreads"] for worker in workers), default=1)
    return ClusterLayout(workers=len(workers) or config.workers or 1, lanes=config.lanes or max(1, threads - 1))

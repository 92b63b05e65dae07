"""A Dask client from a :class:`~flows.cluster.config.ClusterConfig`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster

from flows.cluster.certificates import Certificates, configured_security
from flows.cluster.config import ClusterConfig
from flows.cluster.layout import ClusterLayout, local_layout
from flows.cluster.lending import WORKERS_PATIENCE_S, lent_worker
from flows.cluster.settings import SETTINGS, WORKER_ENVIRONMENT
from flows.run.artifacts import Link
from flows.run.errors import CertificateError, ClusterError
from flows.run.limits import limits
from flows.run.observer import current_observer
from tiling.execute import workers_of

_PATIENCE = "20s"
"""Time within which a scheduler must answer."""

_CLOSING_S = 30.0
"""Seconds that workers have to end by themselves; those that are left then end with this process."""

_reached: dict[tuple[str, Path | None], Client] = {}
"""Clients of running schedulers that a plan has spoken to; the job that follows takes them over."""


def reach(config: ClusterConfig) -> ClusterLayout:
    """Workers and lanes of a cluster that is not local, as far as they are known before anything runs.

    Raises:
        ClusterError: no such scheduler, no GPU, dask-cuda or what it was asked for is not installed.
        CertificateError: a ``tls://`` address without certificates that hold.
    """
    if config.kind == "cuda":
        return ClusterLayout(workers=config.workers or _require_gpus(config), lanes=config.lanes or 1)
    client = _reached[config.kind, config.certificates] = _client(config)
    return _joined_layout(client, config)


def _require_gpus(config: ClusterConfig) -> int:
    """GPUs of this machine."""
    try:
        from dask_cuda.utils import get_n_gpus
    except ImportError as error:
        raise ClusterError(
            f"--cluster cuda needs dask-cuda, which is not installed ({error}): pip install -r requirements-cuda.lock"
        ) from error
    for is_needed, module, package in (
        (config.protocol == "ucx", "distributed_ucxx", "distributed-ucxx-cu13"),
        (config.rmm_pool is not None, "rmm", "rmm-cu13"),
    ):
        if is_needed and find_spec(module) is None:
            raise ClusterError(f"{module} is not installed, which this cluster was asked to use: pip install {package}")
    try:
        gpus = get_n_gpus()
    except Exception as error:  # pynvml raises many types where there is no driver or no device
        raise ClusterError(
            f"--cluster cuda found no usable GPU ({type(error).__name__}: {error}): use --cluster local"
        ) from error
    if not gpus:
        raise ClusterError("--cluster cuda found no GPU (nvidia-smi, CUDA_VISIBLE_DEVICES): use --cluster local")
    if config.workers is not None and config.workers > gpus:
        raise ClusterError(f"--workers {config.workers}, one a GPU, but this machine shows {gpus}")
    return int(gpus)


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
    settings = {**SETTINGS, **({} if workers_stay else _lifetime(config))}
    start = {"local": _local, "cuda": _cuda}.get(config.kind, _running)
    with _quiet(), dask.config.set(settings), start(config) as (client, layout):
        if client.dashboard_link:
            current_observer().show(Link("dask-dashboard", client.dashboard_link, "Dask dashboard", "Workers, live"))
        yield client, layout


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own loggers write errors alone: what a user must know of the workers, our messages say."""
    quieter = dict.fromkeys(
        (f"distributed.{name}" for name in ("nanny", "core", "scheduler", "worker.memory")), "ERROR"
    )
    quieter["tornado.application"] = "CRITICAL"  # on a busy machine a cluster that closes waits in vain for a callback
    levels = {name: logging.getLogger(name).level for name in quieter}
    for name, level in quieter.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)


def _lifetime(config: ClusterConfig) -> dict[str, str]:
    seconds = 3600 * config.worker_hours
    return {
        "distributed.worker.lifetime.duration": f"{seconds}s",
        # so that they are not replaced all at once
        "distributed.worker.lifetime.stagger": f"{seconds / 10}s",
    }


@contextmanager
def closed_in_time(cluster: LocalCluster) -> Iterator[None]:
    """Close a cluster at the end, but do not wait for ever for a worker that died while it started, as Dask would."""
    try:
        yield
    finally:
        with suppress(TimeoutError):
            cluster.close(timeout=_CLOSING_S)


@contextmanager
def _local(config: ClusterConfig) -> Iterator[tuple[Client, ClusterLayout]]:
    layout = local_layout(config)
    with dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}):
        cluster = LocalCluster(
            n_workers=layout.workers,
            threads_per_worker=layout.lanes + 1,  # one more, to read and write while the lanes compute
            processes=True,
            # Dask's own share grows with the threads, and all of them together may be twice what a container has
            memory_limit=config.memory_limit or limits().memory // layout.workers,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        )
        with closed_in_time(cluster), Client(cluster, set_as_default=False) as client:
            yield client, layout


@contextmanager
def _cuda(config: ClusterConfig) -> Iterator[tuple[Client, ClusterLayout]]:
    from dask_cuda import LocalCUDACluster

    lanes = config.lanes or 1
    cluster = LocalCUDACluster(**cuda_options(config), host="127.0.0.1", dashboard_address="127.0.0.1:0")
    with closed_in_time(cluster), Client(cluster, set_as_default=False) as client:
        yield client, ClusterLayout(workers=len(workers_of(client)), lanes=lanes)


def cuda_options(config: ClusterConfig) -> dict[str, Any]:
    """Arguments of dask-cuda's ``LocalCUDACluster``."""
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
    reached = _reached.pop((config.kind, config.certificates), None)
    if reached is not None and reached.status == "running":
        return reached
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


@contextmanager
def _running(config: ClusterConfig) -> Iterator[tuple[Client, ClusterLayout]]:
    workers = config.workers or 1
    with _client(config) as client:
        try:
            client.wait_for_workers(workers, timeout=WORKERS_PATIENCE_S)
        except TimeoutError as error:
            raise ClusterError(
                f"the Dask scheduler at {scheduler_address(config.kind)} has {len(workers_of(client))} of {workers} "
                f"workers after {WORKERS_PATIENCE_S:.0f} s"
            ) from error
        yield client, _joined_layout(client, config)


def _joined_layout(client: Client, config: ClusterConfig) -> ClusterLayout:
    workers = workers_of(client).values()
    threads = min((worker["nthreads"] for worker in workers), default=1)
    return ClusterLayout(workers=len(workers) or config.workers or 1, lanes=config.lanes or max(1, threads - 1))

"""Dask's settings for a run; schedulers and workers that others start have them from ``deploy/dask/dasnet.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dask

# On a CPU a predictor computes with one thread, so that its bits do not depend on the number of cores; the cores are
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
    # Dask's own watching takes time from a worker's threads: its profiler samples a hundred times a second, its clocks
    # tick fifty times; the ledger says where the time goes
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.admin.log-format": "%(asctime)s %(name)s %(levelname)s %(message)s",
}


@contextmanager
def several_at_a_time() -> Iterator[None]:
    """Let flows in threads each have a local cluster.

    Dask's settings are those of the process, and the flow that ends first puts back the ones from before it began: they
    must be those that the others need.
    """
    with dask.config.set({**SETTINGS, "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}):
        yield

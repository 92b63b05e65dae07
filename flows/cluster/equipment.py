"""Tools on workers: every worker gets the one of a stage, describes its arithmetic, and gives it back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from distributed import Client, Scheduler, Worker

from flows.run.errors import ClusterError
from tiling.execute import Equipment

_WORKERS_LOST = 3
"""How often in a row a worker may vanish while all are asked something."""

_BROUGHT_BY = "-of-dasnet-"
"""Part of the name of equipment; the id of the client that brought it follows."""

T = TypeVar("T")


@contextlib.contextmanager
def equipped(client: Client, what: str, make_tool: Callable[[], Callable[..., Mapping[str, Any]]]) -> Iterator[str]:
    """Every worker has a tool as long as the block lasts; yields the name of the equipment.

    A scheduler that outlives the run would hand the tool to every worker that joins later, so it is taken away at the
    end; what a run that was killed has left there is taken away now.
    """
    name = f"{what}-{time.time_ns():x}{_BROUGHT_BY}{client.id}"
    for other in _left_behind(client):
        with contextlib.suppress(OSError, ValueError):
            with_all_workers(partial(client.unregister_worker_plugin, other))
    try:
        with_all_workers(lambda: client.register_plugin(Equipment(name, make_tool), name=name))
        yield name
    finally:
        if client.status == "running":  # else the error that ended the cluster is on its way up already
            with contextlib.suppress(OSError, ValueError):
                with_all_workers(lambda: client.unregister_worker_plugin(name))


def _left_behind(client: Client) -> list[str]:
    """Names of the equipment of clients that are gone."""

    def plugins_and_clients(dask_scheduler: Scheduler) -> tuple[list[str], list[str]]:
        return [str(name) for name in dask_scheduler.worker_plugins], [str(name) for name in dask_scheduler.clients]

    # a function inside a function travels by value: a scheduler may have none of our packages
    plugins, clients = client.run_on_scheduler(plugins_and_clients)
    return [name for name in plugins if _BROUGHT_BY in name and name.rpartition(_BROUGHT_BY)[2] not in clients]


def with_all_workers(call: Callable[[], T]) -> T:
    """Ask something of every worker, again if one went silent meanwhile: the next time the scheduler knows it is gone.

    Raises:
        OSError: a worker was lost each time.
    """
    for _ in range(_WORKERS_LOST):
        try:
            return call()
        except OSError:
            time.sleep(1.0)
    return call()


def describe_predictors(client: Client, equipment: str) -> dict[str, Any]:
    """Arithmetic of the workers' tools: device, precision, torch version. Every worker must say the same.

    Raises:
        ClusterError: they differ, so the result would depend on which worker computed which block.
        UnlikeWorkerError: one could not make its tool.
    """
    arithmetic = with_all_workers(lambda: client.run(_describe_equipment, equipment))
    distinct = {tuple(sorted(facts.items())) for facts in arithmetic.values()}
    if len(distinct) > 1:
        lines = "\n".join(f"  {address}: {facts}" for address, facts in arithmetic.items())
        raise ClusterError(
            f"the workers of this cluster do not compute alike, so the result would not be one:\n{lines}"
        )
    return dict(distinct.pop())


def _describe_equipment(equipment: str, dask_worker: Worker) -> dict[str, Any]:
    plugin = dask_worker.plugins.get(equipment)
    if not isinstance(plugin, Equipment):
        raise OSError(f"worker {dask_worker.address} has just joined")  # with_all_workers then asks again
    plugin.ready(dask_worker.address)
    return plugin.describe()

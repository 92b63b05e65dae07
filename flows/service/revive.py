"""Runs that died with an earlier server, found by asking them for a sign of life."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime, timedelta

from flows.run.heartbeats import HEARTBEAT, NEVER_STARTED_S, TAG

_ASK_AFTER_S = 20.0
"""Seconds after which a server that has just been started has loaded its automations."""


@contextmanager
def asked_for_signs_of_life(warn: Callable[[str], None]) -> Iterator[None]:
    """While a server runs: once it is up, ask the runs of deployments that it believes to be at work whether they are.

    A server that was away for longer than the silence that marks a run as dead has forgotten that it waited: without
    this, a run that died with the machine would stay Running, and keep its place in the queue, for ever.
    """

    def ask() -> None:
        try:
            asyncio.run(_pretend_signs_of_life())
        except Exception as error:
            warn(f"runs that died with an earlier server may stay Running in the UI: {error}")

    timer = threading.Timer(_ASK_AFTER_S, copy_context().run, (ask,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


async def _pretend_signs_of_life() -> None:
    """Send the server a heartbeat for each run at work: it then waits for the run's own, and marks a dead run."""
    from prefect import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterParentFlowRunId,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.events import Event
    from prefect.events.clients import get_events_client

    at_work = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    of_ours = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=at_work)),
    )
    async with get_client() as client:
        # runs of a command on a terminal do not count: its own server over this database alone hears their heartbeats
        runs = [run for run in await client.read_flow_runs(flow_run_filter=of_ours) if run.deployment_id is not None]
        if runs:
            parents = FlowRunFilterParentFlowRunId(any_=[run.id for run in runs])
            runs += await client.read_flow_runs(
                flow_run_filter=of_ours.model_copy(update={"parent_flow_run_id": parents})
            )
    recently = datetime.now(UTC) - timedelta(seconds=NEVER_STARTED_S)
    async with get_events_client() as events:
        for run in runs:
            if run.state is None or (run.state.is_pending() and run.state.timestamp > recently):
                continue
            related = [{"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}]
            if run.deployment_id is not None:
                place = {"prefect.resource.id": f"prefect.deployment.{run.deployment_id}"}
                related.append({**place, "prefect.resource.role": "deployment"})
            resource = {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name}
            await events.emit(Event.model_validate({"event": HEARTBEAT, "resource": resource, "related": related}))

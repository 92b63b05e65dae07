"""What Prefect's API knows of a flow run that was called here and has ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)

PATIENCE_S = 60.0
"""For the server to have read the events of the last tasks."""


@dataclass(frozen=True)
class FlowRun:
    """What a person finds in the UI.

    Attributes:
        ending: name of its last state.
        tasks: names of its tasks.
        sub_runs: names of flow runs that began in it.
        artifacts: what was shown, the last of each key.
    """

    ending: str
    tasks: set[str]
    sub_runs: set[str]
    artifacts: dict[str, Any]


def flow_run(flow: Flow[..., Any], request: Any, *, tasks: set[str]) -> FlowRun:
    """Call a flow with a server running, see the fixture `prefect_ui`, and wait until that knows of `tasks`."""
    state = flow(request, return_state=True)
    client = get_client(sync_client=True)
    run = state.state_details.flow_run_id
    of_run = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run]))
    deadline = time.monotonic() + PATIENCE_S
    while not tasks <= (found := {task.name for task in client.read_task_runs(task_run_filter=of_run)}):
        assert time.monotonic() < deadline, f"{tasks - found} are not among {found}"
        time.sleep(0.5)
    artifacts = client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])), limit=200)
    sub_runs = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
    return FlowRun(
        ending=state.name,
        tasks=found,
        sub_runs={one.name for one in client.read_flow_runs(flow_run_filter=sub_runs)},
        artifacts={one.key: one.data for one in sorted(artifacts, key=lambda one: one.created)},
    )

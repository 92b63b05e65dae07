"""Automations as code: what the server does by itself when a run ends badly."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, CallWebhook, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.run.heartbeats import HEARTBEAT, NEVER_STARTED_S, TAG
from flows.run.prefect_observer import INCOMPLETE, REFUSED
from storage.errors import InputError

SILENCE_S = 120
"""Seconds without a sign of life after which a run counts as dead: four heartbeats."""

PAUSE_S = 60
"""Seconds before a second attempt. A worker reports a crash twice, the second time when it has put away the first
attempt: a run that is scheduled again in between would be marked as crashed once more."""

_ROUNDS = 3
"""Deaths after which a run is given up; one is too few, for a very busy worker reports one crash twice."""

GAVE_UP = "GaveUp"
"""Name of the state of a run that is not tried again."""


def _events(*states: str) -> set[str]:
    """Names of the events of a run that comes into one of these states."""
    return {f"prefect.flow-run.{state}" for state in states}


_DIED = _events("Crashed", "Failed")
_ENDED_BADLY = _DIED | _events(INCOMPLETE, REFUSED, GAVE_UP)
_ENDS = _ENDED_BADLY | _events("Completed", "Cancelled")
_AGAIN = _events("AwaitingRetry", "Scheduled", "Pending", "Running")

_MESSAGE = """{{ flow.name }} / {{ flow_run.name }} ended {{ flow_run.state.name }}.

{{ flow_run.state.message }}

{{ flow_run | ui_url }}"""


_OURS = ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"})

_OF_A_DEPLOYMENT = ResourceSpecification(
    {"prefect.resource.id": "prefect.deployment.*", "prefect.resource.role": "deployment"}
)
"""Matches runs of deployments alone: nobody would run a sub-flow again, or a command on a terminal."""


def _trigger(*related: ResourceSpecification, labels: Mapping[str, str] | None = None, **what: Any) -> EventTrigger:
    return EventTrigger(
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*", **(labels or {})}),
        match_related=[_OURS, *related],
        for_each={"prefect.resource.id"},
        **{"threshold": 1, **what},
    )


def _crashed(message: str) -> list[ActionTypes]:
    return [ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", force=False, message=message)]


def automations(notify: CallWebhook | SendNotification | None) -> list[AutomationCore]:
    """The automations that are registered with the deployments.

    Args:
        notify: whom to tell of a run that ended badly; None = nobody.
    """
    result = [
        AutomationCore(
            name="dasnet: no sign of life",
            description=f"A run that has sent no heartbeat for {SILENCE_S} s is marked as crashed: its process, its "
            "worker or its machine has died.",
            trigger=_trigger(
                posture=Posture.Proactive,
                after={HEARTBEAT},
                expect={HEARTBEAT, *_ENDS},
                within=timedelta(seconds=SILENCE_S),
            ),
            actions=_crashed(f"No sign of life for {SILENCE_S} s: the process, its worker or its machine has died."),
        ),
        AutomationCore(
            name="dasnet: never started",
            description=f"A run that a worker took {NEVER_STARTED_S // 60} minutes ago and that has not begun since is "
            "marked as crashed, because it keeps its place in the queue: its worker or its machine has died.",
            trigger=_trigger(
                _OF_A_DEPLOYMENT,
                posture=Posture.Proactive,
                after=_events("Pending"),
                expect={HEARTBEAT, *_ENDS, *_AGAIN} - _events("Pending"),
                within=timedelta(seconds=NEVER_STARTED_S),
            ),
            actions=_crashed(f"Taken by a worker, and not begun within {NEVER_STARTED_S // 60} minutes."),
        ),
        AutomationCore(
            name="dasnet: once more",
            description="A run that crashed or failed unexpectedly is run again, once; it goes on where it stopped. "
            "Runs that were refused or have blocks in quarantine are not: they need a person.",
            trigger=_trigger(
                _OF_A_DEPLOYMENT,
                labels={"prefect.run-count": "1"},
                posture=Posture.Proactive,
                after=_DIED,
                expect=_AGAIN | _events(GAVE_UP),
                within=timedelta(seconds=PAUSE_S),
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.SCHEDULED,
                    name="AwaitingRetry",
                    force=False,
                    message="Run again once; what is finished is kept.",
                )
            ],
        ),
        AutomationCore(
            name="dasnet: give up",
            description=f"A run that was run again and has died {_ROUNDS} times since (before it began, which does not "
            "count as a second attempt) is left to a person.",
            trigger=_trigger(
                _OF_A_DEPLOYMENT,
                posture=Posture.Reactive,
                after=_events("AwaitingRetry"),
                expect=_DIED,
                within=timedelta(days=7),
                threshold=_ROUNDS,
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.FAILED,
                    name=GAVE_UP,
                    force=True,
                    message=f"Run again, and died {_ROUNDS} times: see the worker's log. Once it is mended, the same "
                    "request goes on where the run stopped.",
                )
            ],
        ),
    ]
    if notify is not None:
        result.append(
            AutomationCore(
                name="dasnet: tell somebody",
                description="Sends a message when a run crashed, failed, was refused, or has blocks in quarantine.",
                trigger=_trigger(
                    _OF_A_DEPLOYMENT, posture=Posture.Reactive, expect=_ENDED_BADLY, within=timedelta(seconds=0)
                ),
                actions=[notify],
            )
        )
    return result


async def notification(client: PrefectClient, block: str) -> CallWebhook | SendNotification:
    """The action that sends a message through a block ``type-slug/name`` of the server, which keeps its secrets.

    Raises:
        InputError: no such block.
    """
    from prefect.exceptions import ObjectNotFound

    kind, separator, name = block.partition("/")
    try:
        if not separator:
            raise ObjectNotFound(ValueError(block))
        document = await client.read_block_document_by_name(name, block_type_slug=kind, include_secrets=False)
    except ObjectNotFound as error:
        raise InputError(
            f"no block {block!r} on the server: make one in the UI under Blocks, for example a webhook called "
            "failures, and name it as webhook/failures"
        ) from error
    identifier: UUID = document.id
    if kind == "webhook":
        return CallWebhook(block_document_id=identifier, payload=_MESSAGE)
    return SendNotification(block_document_id=identifier, subject="DASNet: {{ flow_run.name }}", body=_MESSAGE)


async def register_automations(client: PrefectClient, notify: CallWebhook | SendNotification | None) -> dict[str, str]:
    """Create or update them by name; returns what was done with each. One that a person paused stays paused."""
    done = {}
    for automation in automations(notify):
        registered = next(iter(await client.read_automations_by_name(automation.name)), None)
        if registered is None:
            await client.create_automation(automation)
            done[automation.name] = "made"
        elif _content(registered) == _content(automation):
            done[automation.name] = "there already"  # an update would forget the runs it is watching
        else:
            changes = {"enabled": registered.enabled}
            await client.update_automation(registered.id, automation.model_copy(update=changes))
            done[automation.name] = "updated"
    return done


def _content(automation: AutomationCore) -> dict[str, Any]:
    # compared as Python objects: in JSON a set is a list in any order
    return automation.model_dump(include={"name", "description", "trigger", "actions"})

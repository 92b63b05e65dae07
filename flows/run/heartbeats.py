"""What lets the server tell a run that is at work from one that died: a tag, and heartbeats that come often enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

TAG = "dasnet"
"""Tag of every deployment here, of its runs and of their sub-flows: automations leave other runs alone."""

HEARTBEAT_S = 30
"""Seconds between two signs of life of a run; the fewest that Prefect takes (its default is 180)."""

HEARTBEAT = "prefect.flow-run.heartbeat"
"""Name of Prefect's event that is a sign of life."""

NEVER_STARTED_S = 1800
"""Seconds within which a run that a worker has taken must begin: images are pulled and packages imported in them."""


@contextmanager
def watched() -> Iterator[None]:
    """Let the server's automations see it when the process of a flow that is called inside dies.

    A sub-flow has no tags of its parent's deployment: without this it would stay Running for ever.
    """
    from prefect import tags
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with tags(TAG), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_S}):
        yield

"""What the caller of a job hands to it past its request: a plan that is made already, an event that stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from flows.run.planning import planning

Request = TypeVar("Request")
Job = TypeVar("Job")
T = TypeVar("T")

_plan: ContextVar[tuple[Any, Any]] = ContextVar("plan", default=(None, None))
_stop: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


class StoppedError(RuntimeError):
    """Asked to stop before the end; what is finished is kept."""


@contextmanager
def bound(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Give a variable a value as long as the block lasts."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def already_planned(request: Request, job: Job) -> AbstractContextManager[None]:
    """Let :func:`planned` inside give `job` for `request`: a command plans, and refuses, before anything starts."""
    return bound(_plan, (request, job))


def planned(request: Request, plan: Callable[[Request], Job]) -> Job:
    """The job of a request: the one that is planned already, or the one that `plan` makes now."""
    planned_request, job = _plan.get()
    if planned_request == request:
        return job
    with planning(request):
        return plan(request)


def stopped_by(event: threading.Event) -> AbstractContextManager[None]:
    """Let :func:`raise_if_stopped` inside follow `event`: an interruption reaches the main thread alone."""
    return bound(_stop, event)


def raise_if_stopped() -> None:
    """Raises StoppedError once the event of :func:`stopped_by` is set."""
    event = _stop.get()
    if event is not None and event.is_set():
        raise StoppedError("asked to stop")

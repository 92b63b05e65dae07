"""A plan that was made before its job runs: a command plans, and refuses, before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Request = TypeVar("Request")
Job = TypeVar("Job")

_planned: ContextVar[tuple[Any, Any]] = ContextVar("planned")


@contextmanager
def already_planned(request: Request, job: Job) -> Iterator[None]:
    """Let :func:`planned` inside give `job` for `request`."""
    token = _planned.set((request, job))
    try:
        yield
    finally:
        _planned.reset(token)


def planned(request: Request, plan: Callable[[Request], Job]) -> Job:
    """The job of a request: the one that is planned already, or the one that `plan` makes now."""
    before = _planned.get(None)
    if before is not None and before[0] == request:
        job: Job = before[1]
        return job
    return plan(request)

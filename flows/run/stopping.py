"""How a flow that runs in a thread learns that it is to stop: an interruption reaches the main thread alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_asked: ContextVar[threading.Event | None] = ContextVar("asked_to_stop", default=None)


class StoppedError(RuntimeError):
    """Asked to stop before the end; what is finished is kept."""


@contextmanager
def stopped_by(event: threading.Event) -> Iterator[None]:
    """Let :func:`raise_if_stopped` inside follow `event`."""
    token = _asked.set(event)
    try:
        yield
    finally:
        _asked.reset(token)


def raise_if_stopped() -> None:
    """Raises StoppedError once the event of :func:`stopped_by` is set."""
    event = _asked.get()
    if event is not None and event.is_set():
        raise StoppedError("asked to stop")

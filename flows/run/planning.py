"""What a plan's own faults become: whatever is raised before anything runs is a refusal that names the inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.run.errors import REFUSALS, STORAGE_GAVE_OUT, UNFINISHED, PlanningError

DEBUG = "DASNET_DEBUG"
"""Environment variable that shows where an unforeseen error was raised, as a traceback."""

_INPUTS = ("before", "after", "archive", "source", "dataset", "label", "label_before", "label_after", "paths")
"""Fields of requests that name what is read."""

_SHOWN = 3


@contextmanager
def planning(request: Any) -> Iterator[None]:
    """The time in which a job is planned: nothing runs yet, so no error needs more than a refusal.

    Our own errors pass as they are.

    Raises:
        PlanningError: anything else that was raised inside, with the inputs of the request.
    """
    try:
        yield
    except (*REFUSALS, *UNFINISHED):
        raise
    except OSError as error:
        # the system's own words are enough where it names the file
        if error.errno in STORAGE_GAVE_OUT and error.filename is not None:
            raise PlanningError(f"{_inputs(request)}: {error.filename}: {error.strerror}") from error
        raise PlanningError(_unforeseen(request, error)) from error
    except Exception as error:
        raise PlanningError(_unforeseen(request, error)) from error


def wants_traceback() -> bool:
    """Whether the user asked to see where unforeseen errors were raised."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def _unforeseen(request: Any, error: Exception) -> str:
    # a message of several lines is that of a library, and its first line says what
    words = " ".join((str(error).strip() or "no words").splitlines()[0].split())[:400]
    return (
        f"{_inputs(request)}: {type(error).__name__}: {words}. This was not foreseen: please report it with this line "
        f"({DEBUG}=1 shows where it was raised)"
    )


def _inputs(request: Any) -> str:
    """The inputs by name, of many the first ones."""
    names: list[str] = []
    for field in _INPUTS:
        value = getattr(request, field, None)
        names += (
            []
            if value is None or isinstance(value, bool)
            else [str(value)]
            if not isinstance(value, list | tuple)
            else map(str, value)
        )
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"cannot plan {', '.join(names[:_SHOWN])}{more}"

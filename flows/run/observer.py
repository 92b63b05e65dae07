"""Who watches a job: a job reports to the observer of the moment, and knows of no terminal and no server.

A terminal is an observer, Prefect is another (:mod:`flows.run.prefect_observer`), and tests have one that records.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from flows.run.artifacts import Artifact
from flows.run.context import bound

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a job that is a run of its own: a cell of an archive, a training of a comparison.

    Attributes:
        kind: name of all parts like it.
        title: name of this one.
        parameters: what it was asked, for a person.
    """

    kind: str
    title: str
    parameters: Mapping[str, Any]


class Observer:
    """What a job tells, in the order in which it happens; stages do not overlap.

    This one is silent: it shows nothing, and does steps and parts as they come. Others inherit what they do not need.
    """

    def begin(self, stage: str, total: int, *, done: int = 0, unit: str = "blocks", live: str = "") -> None:
        """A stage of `total` units begins, `done` of which an earlier run finished.

        Args:
            live: a short name under which its progress can be followed; empty: it is over too soon for that.
        """

    def advance(self, count: int = 1) -> None:
        """`count` more units of the current stage are finished."""

    def pause(self) -> None:
        """No unit of the current stage is under way any more, finished or not."""

    def end(self, summary: str) -> None:
        """The current stage is over; `summary` is its line."""

    def warn(self, message: str) -> None:
        """Something the user should know; told once."""

    def show(self, artifact: Artifact) -> None:
        """Something to look at: the plan, a table, a picture, a link."""

    def step(self, name: str, title: str, work: Callable[[], T]) -> T:
        """Do a named step of the job and return what it returns; `title` tells it from others of its `name`."""
        return work()

    def part(self, part: Part, work: Callable[[], T]) -> T:
        """Do a part of the job that is a run of its own, and return what it returns."""
        return work()

    def beside(self) -> Observer:
        """The observer of a part that runs beside others: several at a time would share one line of a terminal."""
        return Observer()


_observer: ContextVar[Observer] = ContextVar("observer")


def current_observer() -> Observer:
    """Who watches what runs here."""
    return _observer.get(Observer())


def observed_by(observer: Observer) -> AbstractContextManager[None]:
    """Let jobs called inside report to `observer`."""
    return bound(_observer, observer)


def step(name: str, title: str | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorator that makes a function a step of the job that calls it.

    Args:
        title: may hold the function's arguments in braces; None = the name.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def observed(*args: P.args, **kwargs: P.kwargs) -> T:
            values = inspect.signature(function).bind(*args, **kwargs).arguments
            return current_observer().step(name, (title or name).format(**values), lambda: function(*args, **kwargs))

        return observed

    return decorate

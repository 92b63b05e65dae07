"""Who watches jobs in tests: an observer that writes down what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from flows.run.artifacts import Artifact
from flows.run.observer import Observer, Part, observed_by

T = TypeVar("T")


class Recorder(Observer):
    """What a job and its parts tell, in order: ``(what, …)``, the name of the call and its arguments."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def begin(self, stage: str, total: int, *, done: int = 0, unit: str = "blocks", live: str = "") -> None:
        self.events.append(("begin", stage, total, done))

    def advance(self, count: int = 1) -> None:
        self.events.append(("advance", count))

    def end(self, summary: str) -> None:
        self.events.append(("end", summary))

    def warn(self, message: str) -> None:
        self.events.append(("warn", message))

    def show(self, artifact: Artifact) -> None:
        self.events.append(("show", artifact))

    def step(self, name: str, title: str, work: Callable[[], T]) -> T:
        self.events.append(("step", name))
        return work()

    def part(self, part: Part, work: Callable[[], T]) -> T:
        self.events.append(("part", part.kind, part.title))
        return work()

    def beside(self) -> Recorder:
        return self

    def all(self, what: str) -> list[Any]:
        """The first argument of every call of that name."""
        return [event[1] for event in self.events if event[0] == what]

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """What was shown, the last of each key."""
        return {artifact.key: artifact for artifact in self.all("show")}

    def advanced(self, stage: str) -> int:
        """Units that a stage said it has finished."""
        begun = next(n for n, event in enumerate(self.events) if event[:2] == ("begin", stage))
        after = [n for n, event in enumerate(self.events) if event[0] == "begin" and n > begun]
        return sum(count for what, count, *_ in self.events[begun : min(after, default=None)] if what == "advance")


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Jobs called inside report to the recorder that is yielded."""
    recorder = Recorder()
    with observed_by(recorder):
        yield recorder

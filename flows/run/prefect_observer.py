"""A job as a flow run: its steps are Prefect tasks, its parts sub-flows, and Prefect's UI shows what it shows.

Two endings need a person and not a second attempt, so they have names of their own (both of Prefect's type FAILED): the
automations and a person's filters tell them from what failed by bad luck.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.states import Failed

from flows.run.artifacts import Artifact, Link, Markdown, Picture, Table
from flows.run.errors import REFUSALS, FailedPartsError
from flows.run.heartbeats import watched
from flows.run.observer import Observer, Part, current_observer, observed_by
from flows.run.quantities import duration
from storage.pages.pictures import data_uri

REFUSED = "Refused"
"""Nothing was computed: the request cannot work, and the message says why."""

INCOMPLETE = "Incomplete"
"""Blocks or cells are in quarantine, or methods failed; everything else is finished and kept."""

UPDATE_INTERVAL_S = 2.0
"""Seconds between two updates of a progress artifact: the number of API calls follows time, not blocks."""

P = ParamSpec("P")
T = TypeVar("T")


def observed_flow(body: Callable[P, T]) -> Callable[P, T]:
    """Decorator below ``@flow``: the job in the body reports to Prefect, and to the observer that it has already.

    It ends Refused or Incomplete where its error says so; the caller gets the same error. Its sub-flows are watched
    for signs of life as the run itself is.
    """

    @functools.wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with watched(), observed_by(PrefectObserver(current_observer())):
                return body(*args, **kwargs)
        except FailedPartsError as error:
            return Failed(name=INCOMPLETE, message=str(error), data=error)  # type: ignore[return-value]  # Prefect takes it
        except REFUSALS as error:
            return Failed(name=REFUSED, message=str(error), data=error)  # type: ignore[return-value]

    # Prefect reads the parameters of the form from here; the names in `body`'s annotations are of its own module
    run.__signature__ = inspect.signature(body, eval_str=True)  # type: ignore[attr-defined]
    run.__annotations__ = inspect.get_annotations(body, eval_str=True)
    return run


class PrefectObserver(Observer):
    """Tells Prefect's API what a job does, and passes on to `other`, a terminal for example."""

    def __init__(self, other: Observer) -> None:
        # a sub-flow has an observer inside its parent's: a terminal behind both must hear of each event once
        self._other: Observer = other._other if isinstance(other, PrefectObserver) else other
        self._stage = ""
        self._warnings: set[str] = set()
        self._progress: _Progress | None = None

    def begin(self, stage: str, total: int, *, done: int = 0, unit: str = "blocks", live: str = "") -> None:
        self._stage = stage
        self._progress = _Progress(live, total, done=done, unit=unit) if live else None
        self._other.begin(stage, total, done=done, unit=unit, live=live)

    def advance(self, count: int = 1) -> None:
        if self._progress is not None:
            self._progress.advance(count)
        self._other.advance(count)

    def pause(self) -> None:
        if self._progress is not None:
            self._progress.flush()
        self._other.pause()

    def end(self, summary: str) -> None:
        _log().info("%s: %s", self._stage, summary)
        self._other.end(summary)

    def warn(self, message: str) -> None:
        if message not in self._warnings:
            self._warnings.add(message)
            _log().warning("%s", message)
            self._other.warn(message)

    def show(self, artifact: Artifact) -> None:
        publish(artifact)
        self._other.show(artifact)

    def step(self, name: str, title: str, work: Callable[[], T]) -> T:
        def run() -> T:
            return self._other.step(name, title, work)

        return task(name=name, task_run_name=title, cache_policy=NO_CACHE, persist_result=False)(run)()

    def part(self, part: Part, work: Callable[[], T]) -> T:
        def run(**parameters: Any) -> T:
            return self._other.part(part, work)

        kinds = dict.fromkeys(part.parameters, inspect.Parameter.KEYWORD_ONLY)
        shown = [inspect.Parameter(name, kind, annotation=Any) for name, kind in kinds.items()]
        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        run.__annotations__ = dict.fromkeys(part.parameters, Any)
        sub_flow = flow(name=part.kind, flow_run_name=part.title, persist_result=False)
        return sub_flow(observed_flow(run))(**part.parameters)

    def beside(self) -> Observer:
        return PrefectObserver(self._other.beside())


class _Progress:
    """A progress artifact that follows a stage, at most one API call every :data:`UPDATE_INTERVAL_S`."""

    def __init__(self, key: str, total: int, *, done: int, unit: str) -> None:
        self._total, self._done, self._unit = total, done, unit
        self._began, self._done_before = time.monotonic(), done
        self._updated = time.monotonic()
        self._artifact = _synchronous(
            create_progress_artifact(progress=self._percent, key=key.replace(" ", "-"), description=self._description)
        )

    @property
    def _percent(self) -> float:
        return 100.0 * self._done / self._total if self._total else 100.0

    @property
    def _description(self) -> str:
        # short: a card of the UI shows some thirty letters
        elapsed = time.monotonic() - self._began
        rate = (self._done - self._done_before) / elapsed if elapsed > 0 else 0.0
        time_left = f", {duration((self._total - self._done) / rate)} left" if rate and self._done < self._total else ""
        return f"{self._done:,} of {self._total:,} {self._unit}{time_left}, {rate:.2f}/s"

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._updated >= UPDATE_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Write the present state, whenever the last one was written."""
        self._updated = time.monotonic()
        update_progress_artifact(artifact_id=self._artifact, progress=self._percent, description=self._description)


def publish(artifact: Artifact) -> None:
    """Show an artifact in Prefect's UI."""
    key, description = artifact.key, artifact.description
    match artifact:
        case Table(header=header, rows=rows):
            table: list[dict[str, Any]] = [
                dict(zip(header, (value if isinstance(value, int) else str(value) for value in row), strict=True))
                for row in rows
            ]
            create_table_artifact(key=key, table=table, description=description)
        case Markdown(markdown=markdown):
            create_markdown_artifact(key=key, markdown=markdown, description=description)
        case Picture(png=png):
            # not an artifact of the kind `image`: the UI writes its address below it, which here is all of its bytes
            page = f"![{description}]({data_uri(png)})"
            create_markdown_artifact(key=key, markdown=page, description=description)
        case Link(address=address, text=text):
            create_link_artifact(key=key, link=address, link_text=text, description=description)


def _synchronous(created: UUID | Coroutine[Any, Any, UUID]) -> UUID:
    # Prefect's functions may return a coroutine; where no event loop runs, as here, they do not
    assert isinstance(created, UUID)
    return created


def _log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("dasnet")

"""What a person sees on the terminal: one line a stage, a bar with rate and time left, each warning once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Reporter(Protocol):
    """Where a flow tells how far it is."""

    def begin(self, stage: str, total: int, *, done: int = 0, unit: str = "blocks") -> None:
        """A stage of `total` units begins, `done` of which an earlier run finished."""

    def advance(self, count: int = 1) -> None:
        """`count` more units of the current stage are finished."""

    def end(self, summary: str) -> None:
        """The current stage is over; `summary` is its line."""

    def warn(self, message: str) -> None:
        """Something the user should know; told once."""


class FlowLogReporter:
    """Writes to the log of the flow run, which the Prefect UI shows, and passes on to a terminal where there is one."""

    def __init__(self, terminal: Reporter | None = None) -> None:
        self._terminal = terminal
        self._stage = ""
        self._told: set[str] = set()

    def begin(self, stage: str, total: int, *, done: int = 0, unit: str = "blocks") -> None:
        self._stage = stage
        if self._terminal is not None:
            self._terminal.begin(stage, total, done=done, unit=unit)

    def advance(self, count: int = 1) -> None:
        if self._terminal is not None:
            self._terminal.advance(count)

    def end(self, summary: str) -> None:
        _flow_log().info("%s: %s", self._stage, summary)
        if self._terminal is not None:
            self._terminal.end(summary)

    def warn(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            _flow_log().warning("%s", message)
            if self._terminal is not None:
                self._terminal.warn(message)


def _flow_log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("dasnet")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.2f} {task.fields['unit']}/s", style="progress.data.speed")


class TerminalReporter:
    """Writes to standard error, so that standard output stays free for what a script may read."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._stage = ""
        self._began = 0.0

    def begin(self, stage: str, total: int, *, done: int = 0, unit: str = "blocks") -> None:
        self._stop()
        self._stage, self._began = stage, time.perf_counter()
        if not self.console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._progress.add_task(stage, total=total, completed=done, unit=unit)
        self._progress.start()

    def advance(self, count: int = 1) -> None:
        if self._progress is not None:
            self._progress.advance(self._progress.tasks[0].id, count)

    def end(self, summary: str) -> None:
        self._stop()
        took = time.perf_counter() - self._began
        self.console.print(f"{self._stage:<9} {summary} [dim]({took:.1f} s)[/dim]", soft_wrap=True)

    def warn(self, message: str) -> None:
        self.console.print(Text.assemble(("warning: ", "yellow"), message), soft_wrap=True)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def close(self) -> None:
        """Take the bar off the screen, also after an error."""
        self._stop()


_reporter: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


def current_reporter() -> Reporter:
    """The reporter of the command that called the flow, or the log of the flow run alone."""
    reporter = _reporter.get()
    if reporter is None:
        _reporter.set(reporter := FlowLogReporter())
    return reporter


@contextmanager
def reporting_to(reporter: TerminalReporter) -> Iterator[None]:
    """Let flows called inside report to `reporter`, beside their log."""
    token = _reporter.set(FlowLogReporter(reporter))
    try:
        yield
    finally:
        _reporter.reset(token)
        reporter.close()


@contextmanager
def reporting_to_log() -> Iterator[None]:
    """Let flows called inside report to their log alone: several at a time would share one line of the terminal."""
    token = _reporter.set(FlowLogReporter())
    try:
        yield
    finally:
        _reporter.reset(token)

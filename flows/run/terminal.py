"""What a person sees on the terminal, or in a notebook: one line a stage, a bar with rate and time left, warnings."""

from __future__ import annotations

import time
from importlib.util import find_spec

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

from flows.run.observer import Observer


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.2f} {task.fields['unit']}/s", style="progress.data.speed")


class TerminalObserver(Observer):
    """Writes to standard error, so that standard output stays free for what a script may read."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._stage = ""
        self._began = 0.0
        self._warnings: set[str] = set()

    def begin(self, stage: str, total: int, *, done: int = 0, unit: str = "blocks", live: str = "") -> None:
        self._stop()
        self._stage, self._began = stage, time.perf_counter()
        if not (self.console.is_terminal or (self.console.is_jupyter and find_spec("ipywidgets"))):
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
        # a summary may name files, and brackets in their names are no markup
        self.console.print(Text.assemble(f"{self._stage:<9} {summary} ", (f"({took:.1f} s)", "dim")), soft_wrap=True)

    def warn(self, message: str) -> None:
        if message not in self._warnings:
            self._warnings.add(message)
            self.console.print(Text.assemble(("warning: ", "yellow"), message), soft_wrap=True)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def close(self) -> None:
        """Take the bar off the screen, also after an error."""
        self._stop()

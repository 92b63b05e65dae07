"""What all commands share: the two consoles, Prefect's server for the time of a command, exit codes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import typer
from rich.console import Console

from storage.places.bucket import Location

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)

EXIT_UNFINISHED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

T = TypeVar("T")


def run_flow(directory: Location, flow: Callable[[], T], *, kept: str) -> T:
    """Run a flow that works in `directory`, with a Prefect server and a progress bar.

    Args:
        kept: what an interruption leaves, for the message.
    """
    from flows.service.embedded import configured_api_url, require_api
    from storage.places.publish import claim_directory

    claim_directory(directory)
    if address := configured_api_url():
        require_api(address)
    with prefect(), terminal():
        try:
            return flow()
        except KeyboardInterrupt:
            stderr.print(f"[yellow]interrupted[/yellow]: {kept}; run the same command again to go on")
            raise typer.Exit(EXIT_INTERRUPTED) from None


def numbers(text: str | None, option: str, kind: type) -> list[Any] | None:
    """What an option with commas holds, None where it is not given; typer's own error for what is no number."""
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{option} takes numbers with commas between them, not {text!r}") from error


def print_pairs(pairs: list[tuple[str, str]]) -> None:
    """A line each: name, then value, to standard output."""
    for name, value in pairs:
        stdout.print(f"[bold]{name:<12}[/bold] ", end="")  # a longer name keeps its distance
        stdout.print(value, markup=False, soft_wrap=True)


@contextmanager
def terminal() -> Iterator[None]:
    """Let flows called inside report to this terminal."""
    from flows.run.reporting import TerminalReporter, reporting_to

    with reporting_to(TerminalReporter(stderr)):
        yield


@contextmanager
def prefect() -> Iterator[None]:
    """Prefect, quiet on the terminal: its logs go to its API, ours is the one line a stage."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Prefect's client would send usage data, and say so in our output
    from flows.run.heartbeats import watched
    from flows.service.embedded import configured_api_url, embedded_server, flush_logs
    from flows.service.login import login_place
    from flows.service.processes import server_log

    server = nullcontext() if configured_api_url() else embedded_server(server_log())
    with server as address:
        if address is not None:
            stderr.print(
                f"Prefect   embedded server, UI while this runs: {address} (login in {login_place()})", soft_wrap=True
            )
        try:
            with watched():
                yield
        finally:
            flush_logs()

"""What all commands share: the two consoles, who watches a job, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any, TypeVar

from rich.console import Console

from storage.places.bucket import Location

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)

EXIT_UNFINISHED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

T = TypeVar("T")


def run_job(
    request: Any, directory: Location, *, job: str, flow: str, kept: str, ui: bool = False, plan: Any = None
) -> Any:
    """Do what a request asks, in `directory`, reporting to this terminal; as a flow run where a Prefect API is used.

    Args:
        plan: what was planned for the request already, None = it is planned when it runs.
        job: ``module:function`` that takes the request.
        flow: the same as a flow of Prefect.
        kept: what an interruption leaves, for the message.
        ui: bring a Prefect server with its UI for the time of the command, if none is configured or running.
    """
    from flows.run.context import already_planned
    from flows.run.observer import observed_by
    from flows.run.terminal import TerminalObserver
    from storage.places.publish import claim_directory

    claim_directory(directory)
    terminal = TerminalObserver(stderr)
    try:
        with observed_by(terminal), prefect_api(ui=ui) as is_used:
            module, _, function = (flow if is_used else job).partition(":")
            with nullcontext() if plan is None else already_planned(request, plan):
                return getattr(import_module(module), function)(request)
    except KeyboardInterrupt:
        stderr.print(f"[yellow]interrupted[/yellow]: {kept}; run the same command again to go on")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        terminal.close()


def print_pairs(pairs: list[tuple[str, str]]) -> None:
    """A line each: name, then value, to standard output."""
    for name, value in pairs:
        stdout.print(f"[bold]{name:<12}[/bold] ", end="")  # a longer name keeps its distance
        stdout.print(value, markup=False, soft_wrap=True)


def print_warning(message: str) -> None:
    """A line to standard error; brackets in the names of files are no markup."""
    stderr.print("[yellow]warning[/yellow]: ", end="")
    stderr.print(message, markup=False, soft_wrap=True)


@contextmanager
def prefect_api(*, ui: bool) -> Iterator[bool]:
    """The Prefect API that is configured, a `dasnet server` of this user on this machine, or with `ui` one for a while.

    Yields whether there is one. Prefect is quiet on the terminal: its logs go to its API, ours is the line a stage.

    Raises:
        PrefectServerError: the configured one does not answer, or Prefect is not installed.
    """
    from flows.run.errors import PrefectServerError
    from flows.service.api import announced_api_url, configured_api_url, require_api, speaking_to
    from flows.service.login import require_home

    configured = configured_api_url()
    announced = None if configured else announced_api_url()
    if not (configured or announced or ui):
        yield False
        return
    if not (configured or announced):
        require_home()
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Prefect's client would send usage data, and say so in our output
    try:
        import prefect.settings  # noqa: F401  whether it can be had

        from flows.run.heartbeats import watched
        from flows.service.embedded import embedded_server, flush_logs
        from flows.service.login import login_place
        from flows.service.processes import server_log
    except ModuleNotFoundError as error:
        raise PrefectServerError(f"Prefect is not installed ({error}), and without it there is no UI") from error
    if configured:
        require_api(configured)
        server: AbstractContextManager[Any] = nullcontext()
    elif announced:
        server = speaking_to(announced, None)
    else:
        server = embedded_server(server_log())
    with server as address:
        if announced:
            require_api(announced)
            stderr.print(f"Prefect   dasnet server, UI: {announced.removesuffix('/api')}", soft_wrap=True)
        elif address is not None:
            stderr.print(
                f"Prefect   embedded server, UI while this runs: {address} (login in {login_place()})", soft_wrap=True
            )
        try:
            with watched():
                yield True
        finally:
            flush_logs()

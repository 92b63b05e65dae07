"""``dasnet server`` and ``dasnet deploy``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import print_pairs, stderr

_RETRIES = 7
"""Of a request that the server was too busy to answer (503: SQLite is locked), with pauses of 2, 4, 8 … s: four
minutes; Prefect's own five retries are one."""


def server(
    host: Annotated[str, typer.Option(help="Address to listen at; anything but loopback opens it to others.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API and the UI.")] = 4200,
    database: Annotated[
        str | None,
        typer.Option(
            help="postgresql+asyncpg://user@host/name, password from ~/.pgpass or PGPASSWORD; default: SQLite."
        ),
    ] = None,
    auth_file: Annotated[
        Path | None, typer.Option(help="File of mode 600 with user:password; default: one is made, once.")
    ] = None,
) -> None:
    """Prefect's server and a worker for this machine, until Ctrl-C: UI, schedules, automations."""
    from flows.service.deployments import default_file, is_registered, register
    from flows.service.login import login_place
    from flows.service.revive import asked_for_signs_of_life
    from flows.service.standing import ServerOptions, Worker, is_loopback, running_server, serve_until_stopped

    options = ServerOptions(host=host, port=port, database=database, auth_file=auth_file)
    with running_server(options) as running, _speaking_to(f"{running.address}/api", running.secret):
        print_pairs([("server", running.address), ("login", f"in {auth_file or login_place()}")])
        if not is_loopback(host):
            _warn(f"{host} is not loopback, and HTTP does not hide the login: put a proxy with TLS in front of it")
        if not is_registered():
            print_pairs(register(file=default_file()).lines())
        with Worker(running) as worker, asked_for_signs_of_life(_warn):
            print_pairs([("worker", f"started; logs in {worker.log.parent}"), ("stop", "Ctrl-C")])
            serve_until_stopped(running, worker, warn=_warn)
            stderr.print("stopping: runs in progress are stopped; what they have finished is kept", soft_wrap=True)


def _warn(message: str) -> None:
    stderr.print(f"[yellow]warning[/yellow]: {message}", soft_wrap=True)


def deploy(
    file: Annotated[Path | None, typer.Option(help="The deployments; default: deploy/prefect.yaml.")] = None,
    pool: Annotated[str, typer.Option(help="Where runs go: process | docker | kubernetes")] = "process",
    notify: Annotated[
        str | None, typer.Option(help="Block of the server that tells of bad ends, for example webhook/failures.")
    ] = None,
) -> None:
    """Register the flows with a Prefect server: work pool, queues, deployments, automations. Safe to repeat."""
    from flows.service.deployments import default_file, register
    from flows.service.embedded import configured_api_url, require_api
    from flows.service.standing import ServerOptions

    address = configured_api_url() or f"{ServerOptions().address}/api"
    with _speaking_to(address, None):
        require_api(address)
        print_pairs(register(file=file or default_file(), pool_type=pool, notify=notify).lines())


@contextmanager
def _speaking_to(address: str, secret: str | None) -> Iterator[None]:
    """Make a server this process's API, and that of `prefect` commands it starts.

    Args:
        secret: its login; None = the environment's, or on this machine the one that `dasnet server` made.
    """
    from urllib.parse import urlsplit

    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    from flows.service.login import login, login_file
    from flows.service.standing import is_loopback

    if secret is None and PREFECT_API_AUTH_STRING.value() is None:
        ours = is_loopback(urlsplit(address).hostname or "") and login_file().exists()
        secret = login(login_file()) if ours else None
    retries = max(_RETRIES, PREFECT_CLIENT_MAX_RETRIES.value())
    settings = {PREFECT_API_URL: address, PREFECT_CLIENT_MAX_RETRIES: retries}
    settings |= {} if secret is None else {PREFECT_API_AUTH_STRING: secret}
    environment = {setting.name: str(value) for setting, value in settings.items()}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with temporary_settings(settings):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

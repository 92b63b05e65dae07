"""``dasnet server`` and ``dasnet deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import print_pairs, stderr


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
    from flows.service.api import announced, is_loopback, speaking_to
    from flows.service.deployments import default_file, is_registered, register
    from flows.service.login import login_place
    from flows.service.revive import asked_for_signs_of_life
    from flows.service.standing import ServerOptions, Worker, running_server, serve_until_stopped

    options = ServerOptions(host=host, port=port, database=database, auth_file=auth_file)
    with running_server(options) as running, speaking_to(f"{running.address}/api", running.secret):
        print_pairs([("server", running.address), ("login", f"in {auth_file or login_place()}")])
        if not is_loopback(host):
            _warn(f"{host} is not loopback, and HTTP does not hide the login: put a proxy with TLS in front of it")
        if not is_registered():
            print_pairs(register(file=default_file()).lines())
        with announced(running.address), Worker(running) as worker, asked_for_signs_of_life(_warn):
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
    from flows.service.api import configured_api_url, require_api, speaking_to
    from flows.service.deployments import default_file, register
    from flows.service.standing import ServerOptions

    address = configured_api_url() or f"{ServerOptions().address}/api"
    with speaking_to(address, None):
        require_api(address)
        print_pairs(register(file=file or default_file(), pool_type=pool, notify=notify).lines())

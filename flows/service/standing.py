"""`dasnet server`: Prefect's server and a worker for this machine, until Ctrl-C.

Both write to log files: what Prefect prints as it shuts down is nothing a user should see after runs that went well.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from flows.run.errors import PrefectServerError
from flows.run.fields import Cli, Frozen
from flows.run.heartbeats import HEARTBEAT_S
from flows.service.login import LOGIN, home, login, one_at_a_time, require_home
from flows.service.processes import await_health, end_process, start_prefect

POOL = "dasnet"

_STOPPING_S = 75.0
"""Seconds that the worker has to end: it gives a run 30 s to end by itself."""

_RESTART_S = 10.0
"""Seconds before a worker that ended is started again."""

_SERVER_ONLY = ("PREFECT_SERVER_", "PREFECT_API_DATABASE_", "PREFECT_UI_", "PGPASSWORD", "PGPASSFILE")
"""Variables that a worker and its runs must not inherit: they speak to the API, never to the database."""


class ServerOptions(Frozen):
    """Where the server listens and what it keeps."""

    host: Annotated[str, Field(description="Address to listen at; anything but loopback opens it to others.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=1, le=65535, description="Port of the API and the UI.")] = 4200
    database: Annotated[
        str | None,
        Cli(metavar="URL"),
        Field(
            description="postgresql+asyncpg://user@host/name, password from ~/.pgpass or PGPASSWORD; default: the "
            "environment's, or SQLite in PREFECT_HOME."
        ),
    ] = None
    auth_file: Annotated[
        Path | None,
        Cli(metavar="FILE"),
        Field(
            description="File of mode 600 with user:password; default: the environment's, or one that is made once in "
            "PREFECT_HOME."
        ),
    ] = None

    @model_validator(mode="after")
    def _has_no_secret(self) -> ServerOptions:
        if self.database is None:
            return self
        parts = urlsplit(self.database)
        if parts.password is not None:
            raise PrefectServerError(
                "--database must not hold a password, which every user of this machine could see: "
                "put it into ~/.pgpass (mode 600) or PGPASSWORD"
            )
        if parts.scheme not in ("postgresql+asyncpg", "sqlite+aiosqlite"):
            raise PrefectServerError(
                f"--database takes postgresql+asyncpg://… or sqlite+aiosqlite://…, not {parts.scheme or self.database}"
            )
        return self

    @property
    def address(self) -> str:
        """Address of the UI, as this machine reaches it."""
        host = self.host
        with contextlib.suppress(ValueError):
            number = ipaddress.ip_address(host)
            if number.is_unspecified:
                host = "127.0.0.1" if number.version == 4 else "::1"
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def server_environment(options: ServerOptions, secret: str) -> dict[str, str]:
    """Environment of the server process: whatever is secret is here, and nowhere else."""
    environment = {
        # a busy machine answers PostgreSQL's clients late; Prefect gives up after 10 s and 5 s
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "30",
        # links in notifications begin with it; behind a proxy the environment names another
        "PREFECT_UI_URL": options.address,
        **os.environ,
        LOGIN: secret,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": options.address,
        "PREFECT_SERVER_UI_API_URL": "/api",  # wherever the browser found the UI, tunnels and proxies included
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # automations of this server speak to it through its own API
        "PREFECT_API_AUTH_STRING": secret,
    }
    if options.database is not None:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = options.database
    environment.pop("PREFECT_API_URL", None)
    return environment


def worker_environment(address: str, secret: str) -> dict[str, str]:
    """Environment of the worker and its runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_SERVER_ONLY)}
    return {
        **inherited,
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_API_AUTH_STRING": secret,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "DO_NOT_TRACK": "1",
    }


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers."""

    address: str
    server: subprocess.Popen[bytes]
    server_log: Path
    secret: str


@contextlib.contextmanager
def running_server(options: ServerOptions) -> Iterator[Running]:
    """Start the server; yields when it answers, ends it at the end.

    Raises:
        PrefectServerError: the port is taken, the database cannot be reached, or it did not answer in time.
    """
    _require_free_port(options)
    require_home()
    secret = login(options.auth_file)
    log = home() / "dasnet-server.log"
    with one_at_a_time():
        process = start_prefect(
            ["server", "start", "--host", options.host, "--port", str(options.port), "--log-level", "WARNING"],
            environment=server_environment(options, secret),
            log=log,
        )
        try:
            await_health(process, f"{options.address}/api/health", log)
        except BaseException:
            end_process(process, patience_s=15.0)
            raise
    try:
        yield Running(address=options.address, server=process, server_log=log, secret=secret)
    finally:
        end_process(process, patience_s=15.0)


def _require_free_port(options: ServerOptions) -> None:
    # another program that has the port would answer in place of our server
    try:
        family, kind, *_, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise PrefectServerError(
            f"cannot listen at {options.host} port {options.port} ({error.strerror}): "
            "is another `dasnet server` running? Choose another --port"
        ) from error


class Worker:
    """A process worker of the pool `dasnet`, started again when it dies.

    How many runs it has at a time, the queues of the pool say: a limit of its own (`--limit`) ends a worker that is
    given a run again before it has put away the last attempt.
    """

    def __init__(self, running: Running) -> None:
        self.log = home() / "dasnet-worker.log"
        self._environment = worker_environment(running.address, running.secret)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it; it stops the runs that it still has, and reports that to the server."""
        if self._process is not None:
            end_process(self._process, patience_s=_STOPPING_S)

    def start(self) -> None:
        command = ["worker", "start", "--pool", POOL, "--type", "process"]
        self._process = start_prefect(command, environment=self._environment, log=self.log)

    @property
    def ended(self) -> int | None:
        """Its exit code, where it has ended."""
        return None if self._process is None else self._process.poll()


def serve_until_stopped(running: Running, worker: Worker, *, warn: Callable[[str], None]) -> None:
    """Return at Ctrl-C or SIGTERM; start the worker again when it ends.

    Raises:
        PrefectServerError: the server ended by itself.
    """
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not stopped.wait(0.5):
            if (code := running.server.poll()) is not None:
                raise PrefectServerError(f"the Prefect server ended with code {code}: see {running.server_log}")
            if worker.ended is not None:
                warn(f"the worker ended with code {worker.ended} and is started again: see {worker.log}")
                if not stopped.wait(_RESTART_S):
                    worker.start()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

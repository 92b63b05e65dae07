"""An embedded Prefect server for a command that runs where no server is configured.

Prefect can start a temporary server by itself, but that one writes tracebacks to the user's terminal as it shuts down
and serves no UI. This one writes to a log file, serves the UI, and dies with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.service.login import login, one_at_a_time, require_home
from flows.service.processes import await_health, end_process, free_port, start_prefect

# A server for one command need not schedule, watch over other runs or clean up; it must record task runs and events.
_IDLE_SERVICES = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)


def flush_logs() -> None:
    """Send what Prefect still holds for its API: once the server has gone, it could not."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    # in a thread of its own: where an event loop runs (a notebook), Prefect would hand back a coroutine and not wait
    with ThreadPoolExecutor(1) as outside_any_loop:
        for worker in (APILogWorker, EventsWorker):
            outside_any_loop.submit(worker.drain_all, timeout=10).result()


@contextlib.contextmanager
def embedded_server(log: Path, *, patience_s: float = 300.0, log_level: str = "WARNING") -> Iterator[str]:
    """Run a Prefect server on a free loopback port and make it this process's API; yields the UI's address.

    Its database is Prefect's own (``PREFECT_HOME``), so runs of one user are found again by `dasnet server`, and so it
    asks for the same login: others on this machine reach loopback too.

    Args:
        log: file that takes what the server prints.
        patience_s: seconds until it must answer.
        log_level: level from which the server prints; INFO has a line for every request.

    Raises:
        PrefectServerError: it ended or did not answer in time.
        SecretError: the login cannot be used.
    """
    require_home()
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    address = f"http://127.0.0.1:{(port := free_port())}"
    secret = login(None)
    environment = {
        **os.environ,
        "PREFECT_UI_API_URL": f"{address}/api",
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": address,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        **{f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in _IDLE_SERVICES},
        "DO_NOT_TRACK": "1",
    }
    command = ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--log-level", log_level]
    with one_at_a_time():
        process = start_prefect(command, environment=environment, log=log)
        try:
            await_health(process, f"{address}/api/health", log, patience_s)
        except BaseException:
            end_process(process, patience_s=10.0)
            raise
    try:
        with temporary_settings({PREFECT_API_URL: f"{address}/api", PREFECT_API_AUTH_STRING: secret}):
            yield address
    finally:
        end_process(process, patience_s=10.0)

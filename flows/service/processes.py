"""Processes of a server: started, asked for health, ended with the command."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from flows.run.errors import PrefectServerError
from flows.service.login import home


def start_prefect(command: list[str], *, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a `prefect` command that writes to a log file of mode 600 and ends when this process ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", "--no-prompt", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is for our command: it still reports to the server, then ends it
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def end_process(process: subprocess.Popen[bytes], *, patience_s: float) -> None:
    """Ask a process to end; kill it where it has not ended after `patience_s` seconds."""
    process.terminate()
    try:
        process.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def server_log() -> Path:
    """The log file of an embedded server."""
    return home() / "dasnet-embedded-server.log"


def free_port() -> int:
    """A port of the loopback interface that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """For a child process, before it runs: end when the parent ends."""
    # Linux only: a SIGKILL of the command must not leave its server behind
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def await_health(process: subprocess.Popen[bytes], url: str, log: Path, patience_s: float = 300.0) -> None:
    """Return when a server answers, within `patience_s` seconds.

    Raises:
        PrefectServerError: its process ended, or it did not answer in time.
    """
    past_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is a server of our own
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise PrefectServerError(f"the Prefect server ended with code {process.returncode}: see {log}")
        with contextlib.suppress(OSError), past_proxies.open(url, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise PrefectServerError(f"the Prefect server did not answer within {patience_s:.0f} s: see {log}")

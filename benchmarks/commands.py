"""Commands as a person gives them at a terminal, each in a fork of one process that has imported what they need.

A fork has a standard output and error of its own, so what libraries write there by themselves is seen too; it may
crash, hang or take memory, and is measured. Starting Python each time would take seconds a command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 30.0
"""Seconds within which a command answers, unless it computes."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A command that has ended.

    Attributes:
        code: exit code; negative = the number of the signal that ended it, -9 also where it took too long.
        peak_bytes: largest resident memory, with what was imported before.
    """

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float
    peak_bytes: int

    @property
    def said(self) -> str:
        """Its messages in one line."""
        return " ".join(self.err.split())

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.err


def dasnet(
    *arguments: object,
    limit_s: float = LIMIT_S,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run `dasnet ARGUMENTS` in a fork of this process, which must have no threads that hold a lock.

    Args:
        limit_s: seconds after which it is killed.
        folder: working directory.
        environment: beside this process's own.
    """
    typed = tuple(str(argument) for argument in arguments)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        started = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            _run(typed, out.fileno(), err.fileno(), folder, environment or {})
        code, peak = _waited(pid, started + limit_s)
        took = time.perf_counter() - started
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(arguments=typed, code=code, out=texts[0], err=texts[1], seconds=took, peak_bytes=peak)


def _run(arguments: tuple[str, ...], out: int, err: int, folder: Path | None, environment: Mapping[str, str]) -> None:
    """What the fork does; it never returns."""
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        # under pytest these are not the files of the descriptors
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        os.environ.update(environment)
        if folder is not None:
            os.chdir(folder)
        sys.argv = ["dasnet", *arguments]
        from flows.cli.main import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _waited(pid: int, deadline: float) -> tuple[int, int]:
    """Exit code and peak memory of a child, which is killed at the deadline."""
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024
        if time.perf_counter() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.01)


@contextmanager
def scheduler() -> Iterator[str]:
    """Address of a running scheduler with one worker, in a process of its own, for as long as the block lasts."""
    with subprocess.Popen(
        [sys.executable, "-c", _SCHEDULER], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError("the scheduler did not start")
        try:
            yield address
        finally:
            process.stdin.close()  # its sign to end


_SCHEDULER = """
import sys
import dask
from distributed import LocalCluster
from flows.cluster.settings import SETTINGS, WORKER_ENVIRONMENT

if __name__ == "__main__":
    with dask.config.set({**SETTINGS, "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}):
        with LocalCluster(
            n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster:
            print(cluster.scheduler_address, flush=True)
            sys.stdin.read()
"""

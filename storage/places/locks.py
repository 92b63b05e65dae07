"""One process at a time in a run directory.

On a local disk the kernel keeps the lock, and ends it with the process. A bucket knows no processes: there the lock is
an object, made by a conditional write, that its owner renews every :data:`BEAT_S` seconds. It is taken over when its
owner is known to be dead (a process of this machine), or has not renewed it for :data:`EXPIRY_S` seconds by the store's
own clock. An owner that was only asleep finds another entity tag when it wakes: its next conditional write fails, so it
records nothing any more. Until then its workers may still write blocks; they are blocks of the same run, hence the same
bytes.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from storage.errors import InputError, ObjectStoreError, StaleWriteError, TakenOverError
from storage.places.bucket import ObjectPath
from storage.places.publish import claim_directory

BEAT_S = 5.0
EXPIRY_S = 60.0
BEAT_PATIENCE = timedelta(seconds=15)
"""For one renewal: a request that hangs must leave time for others before the lock expires."""

LOCK = ".lock"


@contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Claim a local directory for this process; the lock ends with the process, however it ends.

    Raises:
        InputError: not ours, not writable, or another process is at work in it.
    """
    claim_directory(path)
    existed = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    lock = path / LOCK
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not lock.exists() or not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                raise BlockingIOError("the process that held it has just removed it")
        except BlockingIOError:
            file.seek(0)
            raise InputError(f"another process ({file.read().strip() or 'unknown'}) is at work in {path}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} since {datetime.now(UTC).isoformat(timespec='seconds')}")
        file.flush()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            if not existed and not any(path.iterdir()):
                path.rmdir()


class Lease:
    """A lock that is an object in a bucket. Use it as a context; :meth:`require` tells whether it is still ours."""

    def __init__(self, directory: ObjectPath, *, on_wait: Callable[[str], None] = lambda message: None) -> None:
        """`on_wait` is told once if it takes a while until it is clear whether another process is alive."""
        self._directory, self._object, self._on_wait = directory, directory / LOCK, on_wait
        self._owner = {**_this_process(), "token": uuid.uuid4().hex}
        self._tag = ""
        self._lost: str | None = None
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._renew_until_ended, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        """Raises InputError where another process is at work."""
        claim_directory(self._directory)
        try:
            self._tag = self._acquire()
        except ObjectStoreError as error:
            raise InputError(str(error)) from error
        self._beat.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        if kind is not None and issubclass(kind, ObjectStoreError):
            return  # the store is away: asking it again would only take time, and the lock expires
        self._beat.join()
        with suppress(ObjectStoreError, FileNotFoundError):
            if self._object.read()[1] == self._tag:
                self._object.unlink()

    def require(self) -> None:
        """Raise TakenOverError if another process has taken the lock over."""
        if self._lost is not None:
            raise TakenOverError(self._lost)

    def _content(self) -> bytes:
        return json.dumps({**self._owner, "renewed": datetime.now(UTC).isoformat(timespec="seconds")}).encode()

    def _acquire(self) -> str:
        while True:
            with suppress(StaleWriteError):
                return self._object.write(self._content(), only_new=True)
            try:
                held, tag = self._object.read()
            except FileNotFoundError:
                continue  # just released
            owner = _parsed(held)
            if self._is_gone(owner, tag):
                with suppress(StaleWriteError):  # somebody else was faster
                    return self._object.write(self._content(), replacing=tag)

    def _is_gone(self, owner: dict[str, Any], tag: str) -> bool:
        """Wait until it is clear; raises InputError if the owner is alive."""
        is_announced = False
        while True:
            facts = self._object.facts()
            if facts is None:
                return True
            if facts.tag != tag or _is_running(owner):
                raise InputError(
                    f"another process ({owner.get('process')} on {owner.get('host')} since {owner.get('since')}) is at "
                    f"work in {self._directory}"
                )
            if _is_running(owner) is False or self._age_s(facts.modified) > EXPIRY_S:
                return True
            if not is_announced:
                is_announced = True
                self._on_wait(
                    f"process {owner.get('process')} on {owner.get('host')} has a lock on {self._directory}; waiting "
                    f"until it is renewed or {EXPIRY_S:.0f} s old"
                )
            time.sleep(1.0)

    def _age_s(self, modified: datetime) -> float:
        """Seconds since `modified` by the store's clock: that of an object written now, so no other clock matters."""
        probe = self._directory / f".probe-{uuid.uuid4().hex}"
        probe.write(b"")
        try:
            return (probe.stat().modified - modified).total_seconds()
        finally:
            probe.unlink()

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                self._tag = self._object.write(self._content(), replacing=self._tag, patience=BEAT_PATIENCE)
            except StaleWriteError:
                if self._renewed_unheard():
                    continue
                self._lost = (
                    f"this process did not renew its lock on {self._directory} for {EXPIRY_S:.0f} s, and another one "
                    "has taken over: it is at work there now. Nothing was recorded since"
                )
                return
            except ObjectStoreError:
                continue  # the store is away; when it is back, the entity tag tells

    def _renewed_unheard(self) -> bool:
        """Whether what stands there is, as far as can be known, an earlier renewal of ours, whose answer got lost."""
        try:
            held, tag = self._object.read(patience=BEAT_PATIENCE)
        except ObjectStoreError:
            return True  # nobody knows: the next renewal tells
        except FileNotFoundError:
            return False
        if _parsed(held).get("token") != self._owner["token"]:
            return False
        self._tag = tag
        return True


def _this_process() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "started": psutil.Process().create_time(),
        "machine": _machine(),
    }


def _machine() -> str:
    """This boot of this kernel and this space of process numbers: where it is the same, a number means one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex


def _is_running(owner: dict[str, Any]) -> bool | None:
    """Whether the process is alive; None where that cannot be known from here."""
    if owner.get("machine") != _machine():
        return None
    try:
        return bool(abs(psutil.Process(owner["process"]).create_time() - owner["started"]) < 2.0)
    except psutil.NoSuchProcess:
        return False
    except (KeyError, TypeError, ValueError, psutil.Error):
        return None


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except ValueError:
        return {}

"""A run directory: whose it is, which run it holds, and how far that run has come."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.errors import InputError
from storage.publish import claim_directory, write_json_atomically
from tiling.ledger import Ledger

FORMAT = 1


class DifferentRunError(InputError):
    """The directory holds another run; the message lists what changed."""


def run_key(identity: Mapping[str, Any]) -> str:
    """SHA-256 of everything that the result depends on."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


class RunDirectory:
    """``DIR/run.json`` (what the run is), ``DIR/run.zarr``, ``DIR/ledger/`` and the products."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description = path / "run.json"
        self.store = path / "run.zarr"
        self.ledger_directory = path / "ledger"
        self.logs = path / "logs"

    def ledger(self, stage: str) -> Ledger:
        return Ledger(self.ledger_directory, stage)

    @property
    def products_ledger(self) -> Path:
        return self.ledger_directory / "products.json"

    def describe(self) -> dict[str, Any] | None:
        """What ``run.json`` says, or None where there is no run.

        Raises:
            InputError: the file is not one of ours, or of a format this version does not know.
        """
        if not self.description.exists():
            return None
        try:
            content = json.loads(self.description.read_text())
            found = content["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.description} is not a run of this program ({error!r})") from error
        if found != FORMAT:
            raise InputError(f"{self.description} has format {found}; this version reads format {FORMAT}")
        return dict(content)

    def update(self, **facts: Any) -> None:
        """Merge `facts` into ``run.json``."""
        write_json_atomically(self.description, {**(self.describe() or {}), **facts})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Claim the directory for this process; the lock ends with the process, however it ends.

        Raises:
            InputError: not ours, not writable, or another process is at work in it.
        """
        claim_directory(self.path)
        existed = self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / ".lock"
        with lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not lock.exists() or not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                    raise BlockingIOError("the process that held it has just removed it")
            except BlockingIOError:
                file.seek(0)
                raise InputError(
                    f"another process ({file.read().strip() or 'unknown'}) is at work in {self.path}"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} since {datetime.now(UTC).isoformat(timespec='seconds')}")
            file.flush()
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
                if not existed and not any(self.path.iterdir()):
                    self.path.rmdir()

    def adopt(self, identity: Mapping[str, Any], **facts: Any) -> str:
        """Make this the directory of the run that `identity` describes, or go on with it; returns the run key.

        Raises:
            DifferentRunError: it holds a run of another identity.
        """
        key = run_key(identity)
        self.refuse_another(identity)
        if not self.description.exists():
            write_json_atomically(
                self.description,
                {
                    "format": FORMAT,
                    "key": key,
                    "identity": dict(identity),
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    **facts,
                },
            )
        return key

    def refuse_another(self, identity: Mapping[str, Any]) -> None:
        """Raises DifferentRunError if the directory holds a run of another identity; changes nothing."""
        present = self.describe()
        if present is not None and present["key"] != run_key(identity):
            changes = differences(present["identity"], identity)
            raise DifferentRunError(
                f"{self.path} holds another run and is left as it is. What changed:\n"
                + "\n".join(f"  {name}: {old} → {new}" for name, old, new in changes)
                + "\nChoose another --output, or delete that directory."
            )

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Add to the time that a stage has taken over all the processes that worked on this run."""
        taken = dict((self.describe() or {}).get("seconds", {}))
        self.update(seconds={**taken, stage: round(taken.get(stage, 0.0) + seconds, 3)})

    def refuse_changed_execution(self, execution: Mapping[str, Any]) -> None:
        """Refuse to go on with other arithmetic than the run began with: its bytes would not be the same.

        Raises:
            DifferentRunError: naming what changed.
        """
        before = (self.describe() or {}).get("execution")
        if before is None:
            self.update(execution=dict(execution))
        elif before != dict(execution):
            changes = differences(before, execution)
            raise DifferentRunError(
                f"{self.path} was begun with other arithmetic; finishing it so would mix two results:\n"
                + "\n".join(f"  {name}: {old} → {new}" for name, old, new in changes)
                + "\nFinish it as it began, or choose another --output."
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {
            key: leaf
            for name, inner in value.items()
            for key, leaf in _flat(inner, f"{prefix}.{name}".strip(".")).items()
        }
    return {prefix: value}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Leaves of two nested mappings that differ: (dotted name, old value, new value)."""
    before, after = _flat(json.loads(json.dumps(old))), _flat(json.loads(json.dumps(new)))
    return [
        (name, before.get(name, "not set"), after.get(name, "not set"))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]

"""The ledger: which blocks of a run are finished, and the digest of each.

One append-only file of JSON lines a stage, written by the driver alone, a line fsynced before the block counts as
finished. The last line about a block is the one that holds. A torn last line is what a crash leaves behind: it is cut
off, and its block is computed again. Where files cannot be appended to, a log of another kind is handed in.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

State = Literal["done", "failed", "pending"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of one block.

    Attributes:
        block: the block's name; in the ingest stage with the date's number before it, ``t0/r00000c00001``.
        state: ``done``; ``failed`` = quarantined after its retries; ``pending`` = taken up again.
        facts: what the worker reported (digest, seconds, windows, …) or the error and the number of attempts.
    """

    block: str
    state: State
    facts: Mapping[str, Any] = field(default_factory=dict)


class Log(Protocol):
    """Lines that are kept somewhere, with a local file of them at `path`, which need not exist before the first."""

    @property
    def path(self) -> Path: ...

    def append(self, lines: bytes) -> None:
        """Add whole lines: when this returns, they are durable, and at the end of the local file."""
        ...

    def remove(self) -> None:
        """Delete all lines, wherever they are kept."""
        ...


class FileLog:
    """A log that is its local file.

    A file whose last line is torn gets a line break first, so that the torn rest stays one unreadable line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, lines: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class Ledger:
    """The blocks of one stage.

    In memory it holds a name, a state and a file position for each block; facts are read from the file when asked for.
    """

    def __init__(self, directory: Path, stage: str) -> None:
        """The ledger kept in the file ``directory/stage.jsonl``."""
        self._read(FileLog(directory / f"{stage}.jsonl"))

    @classmethod
    def kept_in(cls, log: Log) -> Ledger:
        """The ledger whose lines are in `log`."""
        ledger = cls.__new__(cls)
        ledger._read(log)
        return ledger

    def _read(self, log: Log) -> None:
        self._log = log
        self.unreadable_lines = 0
        self._where: dict[str, tuple[State, int]] = {}
        self._counts: Counter[State] = Counter()
        if self.path.exists():
            with self.path.open("rb") as file:
                position = 0
                for line in file:
                    self._take(line, position)
                    position += len(line)

    @property
    def path(self) -> Path:
        """The local file of the lines."""
        return self._log.path

    def _take(self, line: bytes, position: int) -> None:
        try:
            entry = _parse(line)
        except (ValueError, KeyError, TypeError):
            self.unreadable_lines += bool(line.strip())
            return
        self._note(entry, position)

    def _note(self, entry: Entry, position: int) -> None:
        if entry.block in self._where:
            self._counts[self._where[entry.block][0]] -= 1
        self._counts[entry.state] += 1
        self._where[entry.block] = (entry.state, position)

    def state(self, block: str) -> State:
        return self._where[block][0] if block in self._where else "pending"

    def count(self, state: State) -> int:
        """Blocks that the ledger has in `state`; blocks it has never heard of are not counted."""
        return self._counts[state]

    def entry(self, block: str) -> Entry:
        """The last entry about `block`; KeyError if there is none."""
        position = self._where[block][1]
        with self.path.open("rb") as file:
            file.seek(position)
            return _parse(file.readline())

    def entries(self, state: State) -> Iterator[Entry]:
        """The last entry of each block that is in `state`, in the order in which they came."""
        if not self._counts[state]:
            return
        with self.path.open("rb") as file:
            position = 0
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = _parse(line)
                    if self._where.get(entry.block) == (state, position):
                        yield entry
                position += len(line)

    def append(self, entries: Iterable[Entry]) -> None:
        """Record `entries` durably: they are kept when this returns."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        written = [
            (
                entry,
                json.dumps(
                    {"block": entry.block, "state": entry.state, "at": now, "facts": dict(entry.facts)},
                    separators=(",", ":"),
                ).encode()
                + b"\n",
            )
            for entry in entries
        ]
        self._log.append(b"".join(line for _, line in written))
        position = self.path.stat().st_size - sum(len(line) for _, line in written)
        for entry, line in written:
            self._note(entry, position)
            position += len(line)

    def forget(self, blocks: Iterable[str], *, reason: str) -> None:
        """Set blocks back to pending: quarantined ones on request, finished ones whose bytes turned out wrong."""
        self.append([Entry(block=block, state="pending", facts={"reason": reason}) for block in blocks])

    def remove(self) -> None:
        """Forget all blocks, and delete what is written of them."""
        self._log.remove()
        self._where, self._counts = {}, Counter()

    def forget_failed(self, reason: str) -> None:
        """Set all quarantined blocks back to pending."""
        self.forget([entry.block for entry in self.entries("failed")], reason=reason)


def _parse(line: bytes) -> Entry:
    if not line.endswith(b"\n"):
        raise ValueError("torn line")
    raw = json.loads(line)
    return Entry(block=raw["block"], state=raw["state"], facts=raw["facts"])

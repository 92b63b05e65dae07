"""The ledger: which blocks of a run are finished, and the digest of each.

One append-only file of JSON lines a stage, written by the driver alone, a line fsynced before the block counts as
finished. The last line about a block is the one that holds. A torn last line is what a crash leaves behind: it is cut
off, and its block is computed again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

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


class Ledger:
    """Finished and quarantined blocks of one stage, on disk at ``directory/stage.jsonl``."""

    def __init__(self, directory: Path, stage: str) -> None:
        self.path = directory / f"{stage}.jsonl"
        self.unreadable_lines = 0
        self._entries: dict[str, Entry] = {}
        self._load()

    def _load(self) -> None:
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("torn line")
                raw = json.loads(line)
                entry = Entry(block=raw["block"], state=raw["state"], facts=raw["facts"])
            except (ValueError, KeyError, TypeError):
                self.unreadable_lines += 1
                continue
            self._entries[entry.block] = entry

    def _chosen(self, state: State) -> dict[str, Entry]:
        return {name: entry for name, entry in self._entries.items() if entry.state == state}

    @property
    def done(self) -> dict[str, Entry]:
        return self._chosen("done")

    @property
    def failed(self) -> dict[str, Entry]:
        """Quarantined blocks: they failed all their attempts and wait for ``--retry-failed``."""
        return self._chosen("failed")

    def append(self, entries: Iterable[Entry]) -> None:
        """Record `entries` durably: they are on disk when this returns.

        A file whose last line is torn gets a line break first, so that the torn rest stays one unreadable line.
        """
        entries = list(entries)
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        lines = b"".join(
            json.dumps({"block": e.block, "state": e.state, "at": now, "facts": dict(e.facts)}).encode() + b"\n"
            for e in entries
        )
        with self.path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    lines = b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        for entry in entries:
            self._entries[entry.block] = entry

    def forget(self, blocks: Iterable[str], *, reason: str) -> None:
        """Set blocks back to pending: quarantined ones on request, finished ones whose bytes turned out wrong."""
        self.append(Entry(block=block, state="pending", facts={"reason": reason}) for block in blocks)

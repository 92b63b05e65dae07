"""How far a run has come, read from its directory alone: no cluster, no Prefect, no pixel."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.detect.directory import PRODUCTS
from flows.run.directory import RunDirectory
from flows.training.directory import TrainingDirectory
from storage.errors import InputError
from storage.places.bucket import Location, ObjectPath
from tiling.grid import BlockGrid


@dataclass(frozen=True, kw_only=True)
class StageState:
    """Blocks of one stage."""

    total: int
    done: int
    failed: int

    @property
    def pending(self) -> int:
        return self.total - self.done - self.failed

    def __str__(self) -> str:
        return f"{self.done} of {self.total} blocks done, {self.failed} failed, {self.pending} pending"


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """State of a run.

    Attributes:
        key: the run key.
        stages: ingest, infer, and the pass that a method without training is making between them.
        failed: error of each quarantined block, by its name.
        products: which of the products stand there.
        passes: of a method without training over the mosaics, that are done.
    """

    key: str
    created: str
    stages: dict[str, StageState]
    failed: dict[str, str]
    products: tuple[str, ...]
    passes: int = 0

    @property
    def word(self) -> str:
        """`finished`, `failed` (only quarantined blocks are left) or `unfinished`."""
        if self.failed and not any(stage.pending for stage in self.stages.values()):
            return "failed"
        return "finished" if len(self.products) == len(PRODUCTS) else "unfinished"

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        return [
            ("run", f"{self.key[:16]}… of {self.created}"),
            ("state", self.word),
            *((name, str(stage)) for name, stage in self.stages.items()),
            *([("statistics", f"{self.passes} passes done")] if self.passes else []),
            ("products", ", ".join(self.products) or "none yet"),
        ]


@dataclass(frozen=True, kw_only=True)
class OtherStatus:
    """State of an archive, a dataset, a training or an evaluation.

    Attributes:
        kind: which of them; `state`: finished or unfinished.
        stages: what is known of each stage.
        failed: error of each quarantined shard, by its name.
    """

    kind: str
    key: str
    created: str
    state: str
    stages: dict[str, str]
    failed: dict[str, str]

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        return [(self.kind, f"{self.key[:16]}… of {self.created}"), ("state", self.state), *self.stages.items()]


def directory_status(path: Location) -> RunStatus | OtherStatus:
    """Read the state of whatever of ours is in `path`.

    Raises:
        InputError: there is nothing of ours.
    """
    if isinstance(path, ObjectPath):
        path.require_answer()
    directory = RunDirectory[Location](path)
    description = directory.describe()
    if description is None:
        raise InputError(f"{path} holds no run: {directory.description} does not exist")
    kind = description["identity"].get("kind")
    if kind is None or not isinstance(path, Path):
        return _run_status(path, directory, description)
    stages: dict[str, str] = {}
    failed: dict[str, str] = {}
    for file in sorted((path / "ledger").glob("*.jsonl")):
        ledger = directory.ledger(file.stem)
        stages[file.stem] = f"{ledger.count('done')} done, {ledger.count('failed')} failed"
        failed |= {entry.block: str(entry.facts.get("error", "")) for entry in ledger.entries("failed")}
    for version in sorted((path / "versions").glob("*")):
        stages[version.name] = _version_so_far(version, failed)
    history = TrainingDirectory(path).steps
    if history.exists():
        stages["training"] = _training_so_far(history)
    return OtherStatus(
        kind=kind,
        key=description["key"],
        created=description["created"],
        state=description.get("state", "unfinished"),
        stages=stages,
        failed=failed,
    )


def _version_so_far(version: Path, failed: dict[str, str]) -> str:
    """Of an archive; what failed is added to `failed`."""
    done = quarantined = 0
    cells = sorted((version / "cells").glob("*"))
    for cell in cells:
        ledger = RunDirectory(cell).ledger("infer")
        done, quarantined = done + ledger.count("done"), quarantined + ledger.count("failed")
        for entry in ledger.entries("failed"):
            failed[f"{version.name} {cell.name} {entry.block}"] = str(entry.facts.get("error", ""))
    return f"{done} tasks done, {quarantined} failed, in {len(cells)} cells"


def _training_so_far(history: Path) -> str:
    lines = [json.loads(line) for line in history.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    epochs = [facts for facts in lines if facts["kind"] == "epoch"]
    if not epochs:
        return f"{len(lines)} steps, no epoch yet"
    best = max(epochs, key=lambda facts: (facts.get("prepared", True), facts["f1"]))
    return (
        f"{len(lines) - len(epochs)} steps, {len(epochs)} epochs, best F1 {best['f1']:.3f} on validation at epoch "
        f"{best['epoch'] + 1}"
    )


def _run_status(path: Location, directory: RunDirectory[Location], description: dict[str, Any]) -> RunStatus:
    shape = description["identity"]["grid"]["shape"]
    blocks = BlockGrid(height=shape[0], width=shape[1], size=description["identity"]["parameters"]["block"])
    dates = len(description["identity"]["inputs"])
    stages: dict[str, StageState] = {}
    failed: dict[str, str] = {}
    totals = {"ingest": dates * len(blocks)}
    passes = 0
    if "method" in description["identity"]["parameters"]:
        # what the methods without training are made of is not imported for a run that has none
        from flows.detect.statistics_progress import pass_name, read_progress, sheets_of

        state = read_progress(directory).state
        passes = state.passes
        if not state.finished:
            totals[pass_name(passes + 1)] = len(sheets_of(height=shape[0], width=shape[1]))
    if "first_pass" in description["identity"]["parameters"]:
        from flows.detect.directory import FIRST_PASS_STAGE
        from flows.detect.first_pass_plan import sheets_looked_at

        totals[FIRST_PASS_STAGE] = len(sheets_looked_at(height=shape[0], width=shape[1]))
    for stage, total in {**totals, "infer": len(blocks)}.items():
        ledger = directory.ledger(stage)
        stages[stage] = StageState(total=total, done=ledger.count("done"), failed=ledger.count("failed"))
        failed |= {entry.block: str(entry.facts.get("error", "")) for entry in ledger.entries("failed")}
    return RunStatus(
        key=description["key"],
        created=description["created"],
        stages=stages,
        failed=failed,
        products=tuple(name for name in PRODUCTS.values() if (path / name).exists()),
        passes=passes,
    )

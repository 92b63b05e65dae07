"""A run directory: whose it is, which run it holds, and how far that run has come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Generic, cast

from storage.errors import InputError
from storage.places.bucket import ObjectPath, P
from storage.places.locks import Lease, folder_lock
from storage.places.publish import write_json_atomically
from storage.places.segmented_log import SegmentedLog
from tiling.ledger import Ledger

FORMAT = 1


class DifferentRunError(InputError):
    """The directory holds another run; the message lists what changed."""


def sha256_of_facts(facts: object) -> str:
    """SHA-256 of facts that JSON can hold, in hex. The key of a run is that of all that its result depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class RunDirectory(Generic[P]):
    """``DIR/run.json`` (what the run is), ``DIR/run.zarr``, ``DIR/ledger/`` and the products.

    It lies on a disk or in a bucket.
    """

    def __init__(self, path: P) -> None:
        self.path: P = path
        self._lease: Lease | None = None
        self._ledgers: dict[str, Ledger] = {}
        self.description = self.at("run.json")
        self.store = self.at("run.zarr")
        self.ledger_directory = self.at("ledger")
        self.plates = self.at(".plates")
        self.digests = self.at("digests.json")
        self.headers = self.at("headers.json")

    def at(self, name: str) -> P:
        """The file or folder of that name in this directory."""
        return cast(P, self.path / name)

    def ledger(self, stage: str) -> Ledger:
        """The ledger of a stage, read once and kept; in a bucket a log of numbered objects below ``ledger/STAGE/``."""
        if stage not in self._ledgers:
            self._ledgers[stage] = (
                Ledger.kept_in(SegmentedLog(self.ledger_directory / stage))
                if isinstance(self.ledger_directory, ObjectPath)
                else Ledger(self.ledger_directory, stage)
            )
        return self._ledgers[stage]

    @property
    def products_ledger(self) -> P:
        return self.at("ledger/products.json")

    def describe(self) -> dict[str, Any] | None:
        """What ``run.json`` says, or None where there is no run.

        Raises:
            InputError: the file is not one of ours, or of a format this version does not know.
        """
        if not self.description.exists():
            return None
        try:
            content = json.loads(self.description.read_text())
            recorded_format = content["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.description} is not a run of this program ({error!r})") from error
        if recorded_format != FORMAT:
            raise InputError(f"{self.description} has format {recorded_format}; this version reads format {FORMAT}")
        return dict(content)

    def update(self, **facts: Any) -> None:
        """Merge `facts` into ``run.json``."""
        self.require_lock()
        write_json_atomically(self.description, {**(self.describe() or {}), **facts})

    @contextmanager
    def locked(self, *, on_wait: Callable[[str], None] = lambda message: None) -> Iterator[None]:
        """Claim the directory for this process; `storage.places.locks` says what that means where.

        Args:
            on_wait: called with a message where it takes a while to see whether another process is alive.

        Raises:
            InputError: not ours, not writable, or another process is at work in it.
        """
        if not isinstance(self.path, ObjectPath):
            with folder_lock(self.path):
                self._ledgers.clear()  # another process may have been at work since they were read
                yield
            return
        with Lease(self.path, on_wait=on_wait) as self._lease:
            self._ledgers.clear()
            try:
                yield
            finally:
                self._lease = None

    def require_lock(self) -> None:
        """Raise TakenOverError if another process has taken over a directory that this one had claimed."""
        if self._lease is not None:
            self._lease.require()

    def adopt(
        self, identity: Mapping[str, Any], *, files: Mapping[str, Mapping[str, str]] | None = None, **facts: Any
    ) -> str:
        """Make this the directory of the run that `identity` describes, or go on with it; returns the run key.

        Args:
            identity: content alone; what people call the inputs is no part of it.
            files: SHA-256 of each file by path, by what people call the input that it is of, in the order of the
                identity's ``inputs`` and of whatever else there ends in that word.

        Raises:
            DifferentRunError: it holds a run of another identity.
        """
        self.refuse_another(identity, files=files)
        present = self.describe()
        key = sha256_of_facts(identity) if present is None else str(present["key"])
        if present is None:
            facts = facts if files is None else {"files": files, **facts}
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

    def is_of(self, identity: Mapping[str, Any]) -> bool:
        """Whether the directory holds a run, and one of this identity."""
        present = self.describe()
        return present is not None and _content_of(present["identity"]) == _content_of(identity)

    def refuse_another(
        self, identity: Mapping[str, Any], *, files: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """Raises DifferentRunError if the directory holds a run of another identity; changes nothing.

        Args:
            files: as in :meth:`adopt`; the message then names the files that changed.
        """
        present = self.describe()
        if present is None or self.is_of(identity):
            return
        changes = differences(_content_of(present["identity"]), _content_of(identity))
        is_known = files is not None and present.get("files") and any(name.endswith("inputs") for name, _, _ in changes)
        lines = [
            *(changed_files(present["files"], files or {}) if is_known else ()),
            *(f"{name}: {old} → {new}" for name, old, new in changes if files is None or not name.endswith("inputs")),
        ]
        raise DifferentRunError(
            f"{self.path} holds another run and is left as it is. What changed:\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\nChoose another --output, or delete that directory."
        )

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Add to the time that a stage has taken over all the processes that worked on this run."""
        recorded = (self.describe() or {}).get("seconds", {})
        self.update(seconds={**recorded, stage: round(recorded.get(stage, 0.0) + seconds, 3)})

    def require_execution(self, execution: Mapping[str, Any], *, of: str = "execution") -> Mapping[str, Any]:
        """Refuse to go on with other arithmetic than the run began with: its bytes would not be the same.

        Args:
            of: name in ``run.json`` of what computes so; by default the workers.

        Returns:
            `execution`, which a worker that joins later must have as well.

        Raises:
            DifferentRunError: naming what changed.
        """
        recorded = (self.describe() or {}).get(of)
        if recorded is None:
            self.update(**{of: dict(execution)})
        else:
            require_alike(self.path, recorded, execution)
        return execution


def _content_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity without what people call its parts, as earlier versions had it."""
    content = dict(json.loads(json.dumps(identity)))
    inputs, bundle = content.get("inputs"), content.get("bundle")
    if isinstance(inputs, list):
        content["inputs"] = [_without(entry, "mosaic") for entry in inputs]
    if isinstance(bundle, dict):
        content["bundle"] = _without(bundle, "name")
    return content


def _without(entry: Any, label: str) -> Any:
    return {name: value for name, value in entry.items() if name != label} if isinstance(entry, dict) else entry


def changed_files(old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each file whose content is another: its name and both digests.

    Args:
        old, new: SHA-256 of each file by path, by input; inputs are compared in their order.
    """
    lines = []
    for (_, before), (_, now) in zip(old.items(), new.items(), strict=False):
        names_before, names = (
            {PurePath(path).name: sha256 for path, sha256 in files.items()} for files in (before, now)
        )
        if len(before) == len(now) == 1:  # one file in the place of one, whatever its name
            ((path_before, digest_before),), ((path, digest),) = before.items(), now.items()
            if digest != digest_before:
                was = "" if PurePath(path).name == PurePath(path_before).name else f" in the place of {path_before}"
                lines.append(f"{path}{was}: its content, SHA-256 {digest_before[:12]}… → {digest[:12]}…")
            continue
        for path, digest in now.items():
            digest_before = names_before.get(PurePath(path).name, "")
            if digest_before != digest:
                what = f"its content, SHA-256 {digest_before[:12]}… → {digest[:12]}…" if digest_before else "it is new"
                lines.append(f"{path}: {what}")
        lines += [f"{path}: it is gone" for path in before if PurePath(path).name not in names]
    most = 20
    rest = [f"… and {len(lines) - most} more files"] if len(lines) > most else []
    return [*lines[:most], *rest] or ["the order of the inputs' files, or what is read of them"]


def require_alike(what: object, recorded: Mapping[str, Any], execution: Mapping[str, Any]) -> None:
    """Refuse to finish `what` with other arithmetic than it was begun with; raises DifferentRunError with both."""
    if changes := differences(recorded, execution):
        raise DifferentRunError(
            f"{what} was begun with other arithmetic; finishing it so would mix two results:\n"
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

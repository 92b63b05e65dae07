"""Files appear at their final name complete, on disk and checked, or not at all; directories are claimed first.

On a local disk a file is written under a draft's name, made durable, checked and renamed. A bucket has no rename, and
needs none: the draft lies on the local disk, is checked there, and one upload makes it an object, whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from storage.errors import InputError, ObjectStoreError, StaleWriteError
from storage.places.bucket import Location, ObjectPath

RUN_FILE = "run.json"
"""A directory with this file in it is one of ours."""


@contextmanager
def publish(path: Location, *, verify: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Give a local draft's name; when the block ends well, the draft is made durable and becomes `path`.

    Args:
        path: the final name; what stands there is replaced in one step.
        verify: called with the draft when it is on disk; raises if it is not what it should be.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=scratch_of(path))
    os.close(descriptor)
    draft = Path(name)
    try:
        yield draft
        sync(draft)
        if verify is not None:
            verify(draft)
        if isinstance(path, ObjectPath):
            path.upload(draft)
            return
        draft.chmod(0o644)
        draft.replace(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sha256_of(path: Location) -> str:
    """SHA-256 of a file, as hex; that of an object that :func:`publish` made came with it, and it is not read."""
    if isinstance(path, ObjectPath) and (sent := path.sent_sha256()):
        return sent
    total = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            total.update(part)
    return total.hexdigest()


def scratch_of(path: Location) -> Path:
    """Where drafts of `path` lie: beside it, or in this machine's folder for temporary files (``TMPDIR``)."""
    return Path(tempfile.gettempdir()) if isinstance(path, ObjectPath) else path.parent


def sync(path: Path) -> None:
    """Force a file's or a directory's bytes to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json_atomically(path: Location, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    with publish(path) as draft:
        draft.write_text(json.dumps(content, indent=2, default=str) + "\n")


def claim_directory(path: Location) -> None:
    """Make sure that `path` can be a run directory: missing, empty, or a run's; and that it can be written.

    Raises:
        InputError: it is a file, holds something else, or cannot be written.
    """
    if isinstance(path, ObjectPath):
        _claim_prefix(path)
        return
    if path.exists() and not path.is_dir():
        raise InputError(f"output {path} is a file, not a directory")
    if path.is_dir():
        _refuse_strangers(path)
    place = _existing(path)
    if not place.is_dir():
        raise InputError(f"output {path} cannot be made: {place} is a file")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"output {path} cannot be written: {error.strerror or error} ({place})") from error


def _refuse_strangers(path: Location) -> None:
    # hidden files are drafts and locks of ours, and what desktops leave in folders
    strangers = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    if strangers and not (path / RUN_FILE).exists():
        raise InputError(
            f"output {path} is not empty and not a run of this program: it holds "
            f"{', '.join(sorted(strangers)[:5])}; choose another directory"
        )


def _claim_prefix(path: ObjectPath) -> None:
    path.require_answer()
    if path.key and path.exists():
        raise InputError(f"output {path} is an object, not a prefix")
    _refuse_strangers(path)
    probe = path / f".probe-{uuid.uuid4().hex}"
    try:
        tag = probe.write(b"first", only_new=True)
    except ObjectStoreError as error:
        raise InputError(f"output {path} cannot be written: {error}") from error
    try:
        # what keeps two drivers apart are conditional writes; a store that ignores the condition would let both in
        for condition in ({"only_new": True}, {"replacing": f'"{"0" * 32}"'}):
            try:
                probe.write(b"second", **condition)
            except StaleWriteError:
                continue
            raise InputError(
                f"output {path}: this store ignores If-None-Match or If-Match (its first entity tag was {tag}), so two "
                "processes at work in one run could not be told apart: choose a local --output, or another store"
            )
    except ObjectStoreError as error:
        raise InputError(f"output {path}: this store has no conditional writes: {error}") from error
    finally:
        with suppress(ObjectStoreError):
            probe.unlink()


def free_bytes(path: Path) -> int:
    """Bytes that are free on the disk where a file or directory is, or would be."""
    return shutil.disk_usage(_existing(path)).free


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    place = path.resolve()
    return next(parent for parent in (place, *place.parents) if parent.exists())


def require_free_space(path: Path, needed: int) -> None:
    """Refuse a directory on whose disk fewer than `needed` bytes are free."""
    free = free_bytes(path)
    if free < needed:
        raise InputError(f"{path} needs {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free on its disk")

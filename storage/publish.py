"""Files appear at their final name complete, on disk and checked, or not at all; directories are claimed first."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.errors import InputError

RUN_FILE = "run.json"
"""A directory with this file in it is one of ours."""


@contextmanager
def publish(path: Path, *, verify: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Give a draft's name beside `path`; when the block ends well, the draft is made durable and takes the final name.

    Args:
        path: the final name; a file that stands there is replaced in one step.
        verify: called with the draft when it is on disk; raises if it is not what it should be.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    draft = Path(name)
    try:
        yield draft
        sync(draft)
        if verify is not None:
            verify(draft)
        draft.chmod(0o644)
        draft.replace(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file's or a directory's bytes to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    with publish(path) as draft:
        draft.write_text(json.dumps(content, indent=2, default=str) + "\n")


def claim_directory(path: Path) -> None:
    """Make sure that `path` can be a run directory: missing, empty, or a run's; and that it can be written.

    Raises:
        InputError: it is a file, holds something else, or cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"output {path} is a file, not a directory")
    if path.is_dir():
        # hidden files are drafts and locks of ours, and what desktops leave in folders
        strangers = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
        if strangers and not (path / RUN_FILE).exists():
            raise InputError(
                f"output {path} is not empty and not a run of this program: it holds "
                f"{', '.join(sorted(strangers)[:5])}; choose another directory"
            )
    place = path.resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError(f"output {path} cannot be made: {place} is a file")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"output {path} cannot be written: {error.strerror or error} ({place})") from error


def require_free_space(path: Path, needed: int) -> None:
    """Refuse a directory on whose disk fewer than `needed` bytes are free."""
    place = path.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(f"{path} needs {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free on its disk")

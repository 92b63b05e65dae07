"""Secrets come from the environment or from a file that only its owner can read; never from a command line."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flows.run.errors import PrefectHomeError, SecretError
from flows.run.homes import NO_HOME


def read_secret(path: Path) -> str:
    """The one line of a file of mode 600.

    Raises:
        SecretError: not there, readable by others, empty, or of several lines.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text().strip()
    except OSError as error:
        raise SecretError(f"{path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise SecretError(f"{path} has mode {mode:03o}, others can read it: chmod 600 {path}")
    if not text or "\n" in text:
        raise SecretError(f"{path} must hold one line, not {len(text.splitlines())}")
    return text


def login_from(path: Path) -> str:
    """``user:password`` of a file.

    Raises:
        SecretError: as :func:`read_secret`, or it is not of that form.
    """
    return require_login(read_secret(path), path)


def require_login(text: str, where: object) -> str:
    """Refuse what is not ``user:password``; the message never holds the value.

    Raises:
        SecretError: no user, no password, or no colon between them.
    """
    user, separator, password = text.partition(":")
    if not (user and separator and password):
        raise SecretError(f"{where} must hold user:password")
    return text


def make_login(path: Path) -> str:
    """A new ``admin:…`` in a new file of mode 600, 160 random bits; where another command was first, its login."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # of mode 600
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"admin:{secrets.token_urlsafe(20)}\n")
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)  # it appears whole, and one process alone makes it
    finally:
        draft.unlink(missing_ok=True)
    return login_from(path)


_NO_HOME = Path(NO_HOME) / ".prefect"

_ROOM_BYTES = 4 << 20
"""What a new database of Prefect takes, with its log."""

LOGIN = "PREFECT_SERVER_API_AUTH_STRING"
"""Variable of the environment that may hold the login."""


def home() -> Path:
    """Prefect's folder of this user: database, logs, login; as Prefect finds it, which need not be imported.

    Where a user has no home it is a folder that does not exist: :func:`require_home` says so to who needs one.
    """
    folder = Path(os.environ.get("PREFECT_HOME") or "~/.prefect")
    try:
        return folder.expanduser()
    except RuntimeError:  # neither HOME nor an entry of this user in the system's list
        return _NO_HOME


def require_home() -> Path:
    """Prefect's folder, made where it is missing, with room for a database.

    Raises:
        PrefectHomeError: it cannot be had, in a line that says what to do.
    """
    folder = home()
    advice = "set PREFECT_HOME to a folder that can be written"
    if folder == _NO_HOME:
        raise PrefectHomeError(f"this user has no home folder, where Prefect keeps its database and login: {advice}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_ROOM_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        what = "is a file" if folder.is_file() else error.strerror or str(error)
        raise PrefectHomeError(
            f"{folder}, where Prefect keeps its database and login, cannot be written ({what}): {advice}"
        ) from error
    return folder


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Servers of one home start one after the other: the first of them makes the database, and two would clash.

    Raises:
        PrefectHomeError: as :func:`require_home`.
    """
    with (require_home() / "dasnet-start.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # it goes with the process, however that ends
        yield


def login_file() -> Path:
    """Where `dasnet server` keeps the login it made, and the other commands of this user find it."""
    return home() / "dasnet-login"


def login_place() -> str:
    """Where :func:`login` finds it without a file of its own, for a person."""
    return "the environment" if LOGIN in os.environ else str(login_file())


def login(auth_file: Path | None) -> str:
    """``user:password`` of the file, the environment, or the file that `dasnet server` made or now makes.

    Raises:
        SecretError: badly formed, or others can read it.
    """
    if auth_file is not None:
        return login_from(auth_file)
    if text := os.environ.get(LOGIN):
        return require_login(text, LOGIN)
    return login_from(login_file()) if login_file().exists() else make_login(login_file())

"""Which content a file had when it was planned with, and that what is read later is of that content.

A file on a disk is known by size, time of modification and inode, one on a server by size and entity tag or
``Last-Modified``, a member of a ZIP or TAR archive by the archive, a Zarr group by all its files. Inodes are compared
on the machine that planned alone: the same file has another one on another host, and on FUSE another one each time.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from storage.errors import InputError, ObjectStoreError, ReplacedError
from storage.imagery.identity.sidecars import is_note, is_overview, meaning_of
from storage.places.bucket import SCHEME, ObjectPath, location
from storage.places.client import FIRST_CONTACT
from storage.places.gdal import plain_name
from storage.places.web import is_web, open_address, quoted_once, web_facts

REPLACED = "was replaced since the run was planned"
"""Words that the error of a block has whose file is another one now; the same command takes it up again."""

_UNREAD = ("ftp", "ftps", "sftp", "ssh")

_ARCHIVE = re.compile(r"/vsi(zip|tar|gzip|7z|rar)/(.*)", re.DOTALL)
_ARCHIVE_NAME = re.compile(r"(.+?\.(?:zip|kmz|tar|tar\.gz|tgz|gz|7z|rar))(?:/|$)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class FileVersion:
    """What tells one content of a file, object, URL or folder from another.

    Attributes:
        path: absolute where it is local; of a member of an archive the archive's.
        size: bytes; None = not known.
        modified: nanoseconds since 1970 of a local file, and of a folder those of its newest one; else the server's
            words; None = not known.
        inode: 0 = not known; valid on `machine` alone.
        machine: boot and file systems of the machine that looked.
        tag: entity tag; of a folder the digest of all its files' versions.
        meaning: SHA-256 of what a side-car of GDAL says of the pixels, None for any other file.
        facts: what else a server says, as text.
        is_group: it is all that lies below a folder or a prefix.
        look: another one for each look at a file whose server tells no version, so that no handle of an earlier plan
            is taken for one of this.
    """

    path: str
    size: int | None = None
    modified: int | str | None = None
    inode: int = 0
    machine: str = field(default="", repr=False)
    tag: str = ""
    meaning: str | None = None
    facts: str = ""
    is_group: bool = False
    look: str = field(default="", repr=False)

    @property
    def is_local(self) -> bool:
        return isinstance(self.modified, int)

    @property
    def is_checkable(self) -> bool:
        """Whether another content would show; a server may name neither entity tag nor time."""
        return bool(self.tag) or self.modified is not None or bool(self.facts)

    def changes(self, now: FileVersion | None) -> list[str]:
        """What is another in the version of now, in words; empty where it is the same content."""
        if self.meaning is not None:
            return [] if self.meaning == (now.meaning if now else "") else ["what it says of the pixels"]
        if now is None:
            return ["it is gone"]
        found = []
        if None not in (self.size, now.size) and self.size != now.size:
            found.append(f"size {self.size:,} → {now.size:,} bytes")
        if self.tag and now.tag:
            if self.tag != now.tag:
                found.append("what lies below it" if self.is_group else f"entity tag {self.tag} → {now.tag}")
        elif self.modified != now.modified:
            found.append(f"modified {_time(self.modified)} → {_time(now.modified)}")
        if self.machine == now.machine and self.inode and now.inode and self.inode != now.inode:
            found.append("another file stands in its place")
        if self.facts != now.facts:
            found.append(f"{self.facts} → {now.facts}")
        return found


def version_of(path: str) -> FileVersion | None:
    """The version of what lies at `path` now; None = nothing does, or nothing that pixels depend on.

    Raises:
        InputError: its server does not answer, or does not tell.
    """
    file = content_file(path)
    if is_overview(file):
        return None
    try:
        if file.startswith(SCHEME):
            return _of_object(ObjectPath.parse(file))
        if is_web(file):
            return _of_web(file)
        if _is_elsewhere(file):
            return _of_other_place(file)
    except ObjectStoreError as error:
        raise InputError(str(error)) from error
    local = Path(file.removeprefix("file://")).absolute()
    try:
        return _of_folder(local) if local.is_dir() else _of_file(local)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def versions_of(files: Sequence[str], *, before: FileVersion | None = None) -> tuple[FileVersion, ...]:
    """Versions of all files of a source that its pixels depend on, each once.

    Args:
        before: version of one of them before its header was read, which is the one that counts.
    """
    versions = {} if before is None else {before.path: before}
    for file in files:
        place = content_file(file)
        key = place if _is_elsewhere(place) or is_web(place) else str(Path(place.removeprefix("file://")).absolute())
        if key not in versions and (version := version_of(file)) is not None:
            versions[version.path] = version
    return tuple(versions.values())


def content_file(path: str) -> str:
    """The file that holds the content of a path: the archive of a member of one, else itself, without GDAL's prefix."""
    inner = path
    while match := _ARCHIVE.fullmatch(inner):
        inner = match[2]
        if inner.startswith("{"):
            inner = inner[1:].partition("}")[0]
        elif not inner.startswith("/vsi") or inner.startswith(("/vsicurl/", "/vsis3/")):
            inner = _archive_name(inner)
    return quoted_once(plain_name(inner))


def is_in_archive(path: str) -> bool:
    """Whether a path is that of a member of an archive."""
    return _ARCHIVE.fullmatch(path) is not None


def _archive_name(path: str) -> str:
    """The part of a path that is the archive: the first that is a file, or, elsewhere, that is named like one."""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        if Path(start := "/".join(parts[:count])).is_file():
            return start
    match = _ARCHIVE_NAME.match(path)
    return match[1] if match else path


def require_versions(versions: Iterable[FileVersion]) -> None:
    """Raise ReplacedError for the first file that is another one now."""
    for version in versions:
        try:
            now = version_of(version.path)
        except InputError as error:
            raise ReplacedError(f"{version.path} cannot be compared with its version when planned: {error}") from error
        if changes := version.changes(now):
            raise replaced(version.path, changes)


def replaced(path: str, changes: Iterable[str]) -> ReplacedError:
    """The error of a file that is another one now."""
    return ReplacedError(f"{path} {REPLACED} ({', '.join(changes)}): start the same command again")


@contextmanager
def of_versions(versions: Sequence[FileVersion]) -> Iterator[None]:
    """What is read inside is of these versions; raises ReplacedError where a file was replaced before or meanwhile.

    A group has too many files to look at for each block: whoever reads it looks at those of the block.
    """
    files = [version for version in versions if not version.is_group]
    try:
        yield
    except OSError:
        require_versions(files)  # the cause, where a file that was replaced made it fail
        raise
    require_versions(files)


def require_part(version: FileVersion, names: Iterable[str]) -> None:
    """Raise ReplacedError where a file of a group is younger than the group was when it was planned.

    Args:
        names: below the group; one that is not there is none of ours to judge.
    """
    assert version.modified is not None
    newest = _in_ns(version.modified)
    for name in names:
        file = location(version.path) / name
        with suppress(FileNotFoundError):
            modified = (
                _in_ns(file.stat().modified.isoformat()) if isinstance(file, ObjectPath) else file.stat().st_mtime_ns
            )
            if modified > newest:
                raise replaced(str(file), [f"modified {_time(newest)} at the latest → {_time(modified)}"])


def _in_ns(modified: int | str) -> int:
    """Nanoseconds since 1970 of a local file's time, or of a bucket's in ISO 8601."""
    if isinstance(modified, int):
        return modified
    return round(datetime.fromisoformat(modified).timestamp() * 1e6) * 1000


def conditions(versions: Sequence[FileVersion]) -> dict[str, str]:
    """Settings with which GDAL asks a server for parts of this version alone; none where there are several files."""
    if len(versions) != 1 or not is_web(versions[0].path):
        return {}  # the condition would stand in requests for the other files too
    version = versions[0]
    if version.tag and not version.tag.startswith("W/"):  # a weak one never matches
        header = f"If-Match: {version.tag}"
    elif version.modified is not None:
        header = f"If-Unmodified-Since: {version.modified}"
    else:
        return {}
    escaped = header.replace("\\", "\\\\").replace('"', '\\"')
    present = os.environ.get("GDAL_HTTP_HEADERS")
    return {
        "GDAL_HTTP_HEADERS": ",".join(filter(None, [present, f'"{escaped}"'])),
        # nothing beside it was there when it was planned, and nothing may come to it
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    }


def _is_elsewhere(path: str) -> bool:
    return ("://" in path or path.startswith("/vsi")) and not path.startswith("file://")


def _of_file(path: Path) -> FileVersion:
    status = path.stat()
    return FileVersion(
        path=str(path),
        size=status.st_size,
        modified=status.st_mtime_ns,
        inode=0 if _has_no_inodes(status.st_dev) else status.st_ino,
        machine=_machine(),
        meaning=meaning_of(path.read_bytes()) if is_note(path.name) else None,
    )


def _of_folder(path: Path) -> FileVersion:
    total, size, newest = hashlib.sha256(), 0, 0
    for file in files_below(path):
        status = file.stat()
        total.update(f"{file.relative_to(path)} {status.st_size} {status.st_mtime_ns}\n".encode())
        size, newest = size + status.st_size, max(newest, status.st_mtime_ns)
    return FileVersion(path=str(path), size=size, modified=newest, tag=total.hexdigest(), is_group=True)


def files_below(folder: Path) -> list[Path]:
    """All files of a folder, in the order of their paths."""
    return sorted(entry for entry in folder.rglob("*") if entry.is_file())


def _of_object(path: ObjectPath) -> FileVersion | None:
    """Size and entity tag of an object, or of all in a Zarr group."""
    facts = path.facts(patience=FIRST_CONTACT)
    if facts is not None:
        meaning = meaning_of(path.read_bytes()) if is_note(path.name) else None
        return FileVersion(path=str(path), size=facts.size, tag=facts.tag, meaning=meaning)
    entries = list(path.walk())
    lines = [f"{entry.relative_to(path)} {facts.size} {facts.tag}" for entry, facts in entries]
    listing = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    newest = max((facts.modified for _, facts in entries), default=None)
    if newest is None:
        return None
    return FileVersion(path=str(path), tag=listing, modified=newest.isoformat(), is_group=True)


def _of_web(address: str) -> FileVersion:
    facts = web_facts(address)
    meaning = None
    if is_note(address):
        with open_address(address) as answer:
            meaning = meaning_of(answer.read())
    version = FileVersion(path=address, size=facts.size, modified=facts.modified, tag=facts.tag or "", meaning=meaning)
    return version if version.is_checkable else replace(version, look=uuid.uuid4().hex)


def _of_other_place(address: str) -> FileVersion:
    import fsspec  # takes a while, and hardly anybody needs it

    scheme = address.partition("://")[0]
    if scheme in _UNREAD:
        raise InputError(f"{address}: rasters are not read over {scheme}: download it first")
    try:
        info = fsspec.filesystem(scheme).info(address)
    except Exception as error:  # each scheme has its own library, and that its own errors
        raise InputError(f"{address}: its server does not tell its version: {error}") from error
    facts = {name: str(info[name]) for name in ("size", "LastModified", "ETag", "mtime") if name in info}
    return FileVersion(path=address, facts=str(facts))


def _time(modified: int | str | None) -> str:
    if not isinstance(modified, int):
        return modified or "unknown"
    return datetime.fromtimestamp(modified / 1e9, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")


@cache
def _machine() -> str:
    """This boot of this kernel with these mounts: where it is the same, an inode means one file."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/mnt').readlink()}"
    except OSError:
        return ""


@cache
def _has_no_inodes(device: int) -> bool:
    """Whether the file system of a device makes up its inodes as it is asked, as FUSE does."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    kinds = [mount.partition(" - ")[2] for mount in mounts if mount.split()[2] == number]
    return any(kind.startswith("fuse") for kind in kinds)

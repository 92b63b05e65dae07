"""Digests of inputs: what a run was made from, for its key and its provenance."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage.errors import InputError, ReplacedError
from storage.imagery.identity.sidecars import is_note, is_overview
from storage.imagery.identity.versions import (
    FileVersion,
    content_file,
    files_below,
    is_in_archive,
    replaced,
    require_versions,
    version_of,
)
from storage.imagery.mosaics import Mosaic
from storage.imagery.sources import Source
from storage.places.bucket import SCHEME, Location
from storage.places.publish import write_json_atomically
from storage.places.web import is_web, quoted_once, web_sha256

_TOO_YOUNG_NS = 2 * 10**9
"""Nanoseconds within which a file can change again without its time of modification showing it."""


@dataclass(frozen=True, kw_only=True)
class MosaicDigest:
    """SHA-256 of a mosaic, and of each of its files by path. For a remote file it is that of what its server says."""

    sha256: str
    files: Mapping[str, str]


class DigestCache:
    """Digests of inputs that were read before: what has its size, time of modification and inode is not read again.

    An archive of a thousand mosaics is looked at every month, and one of them is new; a run of terabytes resumes at
    once. Files on servers and in buckets are never read for their digest, so they have no entry.
    """

    def __init__(self, path: Location) -> None:
        """`path`: JSON file, path of a file or folder → its stamp and SHA-256; written by :meth:`save`."""
        self._path = path
        self._entries: dict[str, list[object]] = {}
        self._is_saved = False
        with suppress(FileNotFoundError, ValueError):  # without one, or with a damaged one, all is read: nothing else
            entries = json.loads(path.read_text())
            if isinstance(entries, dict):
                self._entries = {name: entry for name, entry in entries.items() if isinstance(entry, list)}
                self._is_saved = True

    def digest(self, mosaic: Mosaic) -> MosaicDigest:
        """As :func:`digest_mosaic`."""
        return digest_mosaic(mosaic, digest=self.digest_files)

    def digest_files(self, paths: Sequence[str]) -> dict[str, str]:
        """As :func:`digest_files`."""
        stamps = {path: _stamp(path) for path in paths}
        digests = {
            path: str(self._entries[path][-1])
            for path, stamp in stamps.items()
            if stamp is not None and self._entries.get(path, [])[:-1] == stamp
        }
        read = digest_files([path for path in paths if path not in digests])
        for path, digest in read.items():
            stamp = stamps[path]
            # a file that changes while it is read, or may change at the same tick of its clock, is read again
            if stamp is not None and _stamp(path) == stamp and not _is_young(path):
                self._entries[path] = [*stamp, digest]
                self._is_saved = False
        return {path: digests.get(path) or read[path] for path in paths}

    def save(self) -> None:
        """Keep what is known for the next time, in one step."""
        if not self._is_saved:
            write_json_atomically(self._path, self._entries)
            self._is_saved = True


def _is_young(path: str) -> bool:
    """Whether a local input was modified a moment ago."""
    local = Path(path)
    files = files_below(local) if local.is_dir() else [local]
    now = time.time_ns()
    return any(abs(now - file.stat().st_mtime_ns) < _TOO_YOUNG_NS for file in files)


def _stamp(path: str) -> list[object] | None:
    """What tells that a local input is as it was: size, time of modification and inode of a file, and of a folder one
    digest of those of all its files. None for what is not local."""
    local = Path(path)
    try:
        if local.is_dir():
            listing = "\n".join(f"{file.relative_to(local)} {_stamp_of_file(file)}" for file in files_below(local))
            return [hashlib.sha256(listing.encode()).hexdigest()]
        return _stamp_of_file(local) if local.is_file() else None
    except OSError:
        return None


def _stamp_of_file(path: Path) -> list[object]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def digest_mosaic(mosaic: Mosaic, *, digest: Callable[[Sequence[str]], dict[str, str]] | None = None) -> MosaicDigest:
    """Read all files of a mosaic, several at a time.

    The digest of a mosaic of one file is that file's; of several that of their names, contents and order. Files beside
    a raster count with what they say of its pixels.

    Args:
        digest: gives SHA-256 by path; None = :func:`digest_files`.

    Raises:
        InputError: a file is gone, was replaced since its header was read, or its server does not say which version it
            has.
    """
    sources = mosaic.sources
    versions = {version.path: version for source in sources for version in _versions(source)}
    paths = sorted({file for source in sources for file in source.files if not is_overview(file)})
    told = {path: _digest_of(versions[path]) for path in paths if path in versions and not versions[path].is_local}
    digests = {**(digest or digest_files)([path for path in paths if path not in told]), **told}
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda version: require_versions([version]), versions.values()))
    except ReplacedError as error:
        raise InputError(str(error)) from error
    digests = {path: sha256 for path, sha256 in digests.items() if sha256}
    if len(digests) == 1:
        return MosaicDigest(sha256=next(iter(digests.values())), files=digests)
    total = hashlib.sha256()
    for source in sources:  # in their order: which lies on top, and which file of a place holds which band
        lines = (f"{Path(path).name} {digests[path]}\n" for path in source.files if path in digests)
        total.update("".join(lines).encode() + b"\n")
    return MosaicDigest(sha256=total.hexdigest(), files=digests)


def require_digest(mosaic: Mosaic, digest: Mapping[str, str]) -> None:
    """Read again what no server tells the version of, once all of its pixels are read.

    Args:
        digest: SHA-256 by path, as the digest of the mosaic has it.

    Raises:
        ReplacedError: it is of another content now, so that the pixels may be of either.
    """
    for version in (version for source in mosaic.sources for version in _versions(source)):
        if is_web(version.path) and not version.is_checkable and version.path in digest:
            try:
                now = web_sha256(version.path)
            except InputError as error:
                raise replaced(version.path, [str(error)]) from error
            if now != digest[version.path]:
                raise replaced(version.path, [f"SHA-256 {digest[version.path][:12]}… → {now[:12]}…"])


def counts_otherwise(mosaic: Mosaic) -> bool:
    """Whether :func:`former_digest` may be another than today's: files lie beside the mosaic's."""
    return any(is_note(file) or is_overview(file) for source in mosaic.sources for file in source.files)


def former_digest(mosaic: Mosaic, *, digest: Callable[[Sequence[str]], dict[str, str]]) -> str:
    """SHA-256 of a mosaic as versions before 1.0 made it: of every byte beside it too, whatever a viewer left there."""
    files = {file for source in mosaic.sources for file in source.files}
    beside = [file for file in files if is_note(file) or is_overview(file)]
    digests = digest([file for file in files if file not in beside]) | {file: _raw(file) for file in beside}
    if len(digests) == 1:
        return next(iter(digests.values()))
    total = hashlib.sha256()
    for source in mosaic.sources:
        total.update("".join(f"{Path(path).name} {digests[path]}\n" for path in source.files).encode() + b"\n")
    return total.hexdigest()


def _versions(source: Source) -> Iterator[FileVersion]:
    yield from source.versions
    for part in source.parts:
        yield from _versions(part)


def digest_files(paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file or folder, several at a time; raises InputError as :func:`digest_mosaic`.

    That of a file beside a raster is of what it says of the pixels, and empty where it says nothing.
    """
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(paths, pool.map(_digest, paths), strict=True))


def _digest(path: str) -> str:
    file = content_file(path)
    local = Path(file.removeprefix("file://"))
    if local.exists() and not is_note(file):
        if file == path:
            return _digest_folder(local) if local.is_dir() else _raw(str(local))
        # the archive, and which member of it
        return hashlib.sha256(f"{_raw(str(local))} {path.rpartition(local.name)[2].strip('/}')}".encode()).hexdigest()
    version = version_of(path)
    if version is None:
        raise InputError(f"{path} does not exist")
    if is_in_archive(path):
        return hashlib.sha256(f"{_digest_of(version)} {path}".encode()).hexdigest()
    return _digest_of(version)


def _raw(path: str) -> str:
    """SHA-256 of all bytes of a local file, or of what identifies the version of another one."""
    local = Path(path)
    if not local.exists():
        version = version_of(path)
        return "" if version is None else _digest_of(version)
    with local.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_folder(folder: Path) -> str:
    total = hashlib.sha256()
    for file in files_below(folder):
        total.update(f"{file.relative_to(folder)} {_raw(str(file))}\n".encode())
    return total.hexdigest()


def _digest_of(version: FileVersion) -> str:
    """SHA-256 of what identifies a version of a file that is not read: length, time of modification, entity tag.

    A server that names neither time nor tag is asked for the content.
    """
    if version.meaning is not None:
        return version.meaning
    if version.path.startswith(SCHEME):
        return version.tag if version.is_group else hashlib.sha256(f"{version.size} {version.tag}".encode()).hexdigest()
    if not is_web(version.path):
        return hashlib.sha256(f"{version.path} {version.facts}".encode()).hexdigest()
    if not version.is_checkable:
        return web_sha256(version.path)
    facts = {
        "Content-Length": None if version.size is None else str(version.size),
        "Last-Modified": version.modified,
        "ETag": version.tag or None,
    }
    return hashlib.sha256(f"{quoted_once(version.path)} {facts}".encode()).hexdigest()

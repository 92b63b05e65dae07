"""Digests of inputs: what a run was made from, for its key and its provenance."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import fsspec

from storage.errors import InputError, ObjectStoreError
from storage.imagery.mosaics import Mosaic
from storage.places.bucket import SCHEME, Location, ObjectPath
from storage.places.publish import write_json_atomically


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
            # a file that changes while it is read is read again the next time
            if stamp is not None and _stamp(path) == stamp:
                self._entries[path] = [*stamp, digest]
                self._is_saved = False
        return {path: digests.get(path) or read[path] for path in paths}

    def save(self) -> None:
        """Keep what is known for the next time, in one step."""
        if not self._is_saved:
            write_json_atomically(self._path, self._entries)
            self._is_saved = True


def _stamp(path: str) -> list[object] | None:
    """What tells that a local input is as it was: size, time of modification and inode of a file, and of a folder one
    digest of those of all its files. None for what is not local."""
    local = Path(path)
    try:
        if local.is_dir():
            listing = "\n".join(f"{file.relative_to(local)} {_stamp_of_file(file)}" for file in _files_below(local))
            return [hashlib.sha256(listing.encode()).hexdigest()]
        return _stamp_of_file(local) if local.is_file() else None
    except OSError:
        return None


def _stamp_of_file(path: Path) -> list[object]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _files_below(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.rglob("*") if entry.is_file())


def digest_mosaic(mosaic: Mosaic, *, digest: Callable[[Sequence[str]], dict[str, str]] | None = None) -> MosaicDigest:
    """Read all files of a mosaic, several at a time.

    The digest of a mosaic of one file is that file's; of several that of their names, contents and order.

    Args:
        digest: gives SHA-256 by path; None = :func:`digest_files`.

    Raises:
        InputError: a file is gone, or its server does not say which version it has.
    """
    paths = sorted({file for source in mosaic.sources for file in source.files})
    digests = (digest or digest_files)(paths)
    if len(digests) == 1:
        return MosaicDigest(sha256=next(iter(digests.values())), files=digests)
    total = hashlib.sha256()
    for source in mosaic.sources:  # in their order: which lies on top, and which file of a place holds which band
        total.update("".join(f"{Path(path).name} {digests[path]}\n" for path in source.files).encode() + b"\n")
    return MosaicDigest(sha256=total.hexdigest(), files=digests)


def digest_files(paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file or folder, several at a time; raises InputError as :func:`digest_mosaic`."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(paths, pool.map(_digest, paths), strict=True))


def _digest(path: str) -> str:
    local = Path(path)
    if local.is_dir():
        return _digest_folder(local)
    if local.exists():
        with local.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(_remote_version(path).encode()).hexdigest()


def _digest_folder(folder: Path) -> str:
    total = hashlib.sha256()
    for file in _files_below(folder):
        total.update(f"{file.relative_to(folder)} {_digest(str(file))}\n".encode())
    return total.hexdigest()


def _remote_version(path: str) -> str:
    """What identifies a version of a remote file without reading it: length, modification time, entity tag."""
    address = path.removeprefix("/vsicurl/")
    if address.startswith(SCHEME):
        return _object_version(ObjectPath.parse(address))
    try:
        if address.startswith(("http://", "https://")):
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=30) as answer:
                facts = {name: answer.headers.get(name) for name in ("Content-Length", "Last-Modified", "ETag")}
        else:
            info = fsspec.filesystem(address.partition("://")[0]).info(address)
            facts = {name: str(info[name]) for name in ("size", "LastModified", "ETag", "mtime") if name in info}
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{path}: its server does not tell its version: {error}") from error
    return f"{address} {facts}"


def _object_version(path: ObjectPath) -> str:
    """Size and entity tag of an object, or of all in a Zarr group; the same content uploaded again has the same."""
    try:
        facts = path.facts()
        if facts is not None:
            return f"{facts.size} {facts.tag}"
        versions = [f"{entry.relative_to(path)} {facts.size} {facts.tag}" for entry, facts in path.walk()]
    except ObjectStoreError as error:
        raise InputError(str(error)) from error
    if not versions:
        raise InputError(f"{path} does not exist")
    return "\n".join(versions)

"""Digests of inputs: what a run was made from, for its key and its provenance."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import fsspec

from storage.errors import InputError
from storage.mosaics import Mosaic


@dataclass(frozen=True, kw_only=True)
class MosaicDigest:
    """SHA-256 of a mosaic, and of each of its files by path. For a remote file it is that of what its server says."""

    sha256: str
    files: Mapping[str, str]


def digest_mosaic(mosaic: Mosaic) -> MosaicDigest:
    """Read all files of a mosaic, several at a time; the digest of a mosaic of one file is that file's.

    Raises:
        InputError: a file is gone, or its server does not say which version it has.
    """
    paths = sorted({file for source in mosaic.sources for file in source.files})
    digests = digest_files(paths)
    if len(digests) == 1:
        return MosaicDigest(sha256=next(iter(digests.values())), files=digests)
    total = hashlib.sha256()
    for path, digest in digests.items():
        total.update(f"{Path(path).name} {digest}\n".encode())
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
    for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        total.update(f"{file.relative_to(folder)} {_digest(str(file))}\n".encode())
    return total.hexdigest()


def _remote_version(path: str) -> str:
    """What identifies a version of a remote file without reading it: length, modification time, entity tag."""
    address = path.removeprefix("/vsicurl/")
    try:
        if address.startswith(("http://", "https://")):
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=30) as answer:
                facts = {name: answer.headers.get(name) for name in ("Content-Length", "Last-Modified", "ETag")}
        else:
            known = fsspec.filesystem(address.partition("://")[0]).info(address)
            facts = {name: str(known[name]) for name in ("size", "LastModified", "ETag", "mtime") if name in known}
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{path}: its server does not tell its version: {error}") from error
    return f"{address} {facts}"

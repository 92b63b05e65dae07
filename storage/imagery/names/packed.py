"""Rasters inside a zip or tar file, by the directory that the file has of itself; nothing is unpacked."""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from storage.errors import InputError
from storage.imagery.names.shown import shown
from storage.imagery.sources import RASTER_SUFFIXES

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
PACKED_SUFFIXES = (".zip", *_TAR_SUFFIXES)

_SCHEMES = re.compile(r"^/vsi(zip|tar)/")
_READABLE_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_LARGEST_RATIO = 200
"""Times that what a file unpacks to may be larger than the file, once it is larger than :data:`_SMALL`."""
_SMALL = 2**30
_MOST_MEMBERS = 1_000_000


def is_packed(path: str) -> bool:
    """Whether a name is that of a zip or tar file."""
    return path.lower().endswith(PACKED_SUFFIXES)


def packed_name(path: str) -> str | None:
    """The local zip or tar file that a user's ``/vsizip/…`` or ``/vsitar/…`` names as a whole; None for other names."""
    if not _SCHEMES.match(path):
        return None
    name = _SCHEMES.sub("", path).strip("{}").rstrip("/")
    return name if is_packed(name) and Path(name).is_file() else None


def rasters_inside(path: str) -> list[str]:
    """GDAL's names of the rasters in a local zip or tar file, in the order of their names.

    Raises:
        InputError: naming the file: damaged, encrypted, no raster in it, a member that would lie outside, or one that
            unpacks to far more than a raster could.
    """
    absolute = str(Path(path).absolute())
    if "{" in absolute or "}" in absolute:
        raise InputError(
            f"{shown(path)}: GDAL cannot read inside a file with braces in its name: rename it, or unpack it"
        )
    is_zip = path.lower().endswith(".zip")
    try:
        names = sorted(_raster_names(_zip_members(path) if is_zip else _tar_members(path), path))
    except InputError:
        raise
    # the last is zipfile's for a file that needs a newer version of ZIP
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        ValueError,
        NotImplementedError,
    ) as error:
        raise InputError(f"{shown(path)} cannot be read as a {'zip' if is_zip else 'tar'} file: {error}") from error
    if not names:
        raise InputError(
            f"{shown(path)} holds no raster ({', '.join(RASTER_SUFFIXES)}): unpack it and name what it has"
        )
    return [f"/vsi{'zip' if is_zip else 'tar'}/{{{absolute}}}/{name}" for name in names]


def _raster_names(members: Iterable[tuple[str, int]], path: str) -> Iterator[str]:
    limit = max(_SMALL, _LARGEST_RATIO * Path(path).stat().st_size)
    total = 0
    for number, (name, size) in enumerate(members, start=1):
        total += size
        if total > limit or number > _MOST_MEMBERS:
            raise InputError(
                f"{shown(path)} has {Path(path).stat().st_size:,} bytes and says that it unpacks to more than "
                f"{total:,} in {number:,} files: no rasters are packed like that; unpack it by hand if it is sound"
            )
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name:
            raise InputError(f"{shown(path)} holds {shown(name)}, which would lie outside of it: unpack it by hand")
        if name.lower().endswith(RASTER_SUFFIXES) and not any(part[0] == "." or part == "__MACOSX" for part in parts):
            yield name


def _zip_members(path: str) -> Iterator[tuple[str, int]]:
    with zipfile.ZipFile(path) as file:
        for member in file.infolist():
            if member.is_dir():
                continue
            if member.filename.lower().endswith(RASTER_SUFFIXES):
                if member.flag_bits & 1:
                    raise InputError(f"{shown(path)} is encrypted ({shown(member.filename)}): unpack it first")
                if member.compress_type not in _READABLE_METHODS:
                    raise InputError(
                        f"{shown(path)} holds {shown(member.filename)} compressed by method {member.compress_type}, "
                        "which GDAL cannot read: unpack it first"
                    )
            yield member.filename, member.file_size


def _tar_members(path: str) -> Iterator[tuple[str, int]]:
    """Members by their headers: that of each one stands before it, so that a size is known before it is unpacked."""
    with tarfile.open(path) as file:
        for member in file:
            if member.isfile():
                yield member.name.removeprefix("./"), member.size

"""Names of rasters as lists, tables and items have them, as paths."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from storage.imagery.sources import is_remote
from storage.places.bucket import ObjectPath

_FILE = ("file://localhost/", "file:///")


def local_name(address: str) -> str:
    """The path that a ``file://`` address stands for, quoted or not; any other name as it is."""
    scheme = next((scheme for scheme in _FILE if address.startswith(scheme)), None)
    return address if scheme is None else unquoted_name("/" + address.removeprefix(scheme))


def unquoted_name(path: str) -> str:
    """A local path without the quoting of an address (``%20``), where no file has the name as it stands."""
    return unquote(path) if "%" in path and not is_there(path) else path


def name_beside(folder: Path | ObjectPath, name: str) -> str:
    """What a list in a folder names: an address as it is, else a path; a list in Windows' encoding names files too."""
    name = local_name(name)
    path = folder / name
    if is_remote(name) or isinstance(path, ObjectPath):
        return name if is_remote(name) else str(path)
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8: those of the name, or of the list alone
        other = str(folder / name.encode("utf-8", "surrogateescape").decode("cp1252", "replace"))
        return other if is_there(other) and not is_there(str(path)) else str(path)
    return str(path)


def is_there(path: str) -> bool:
    """Whether a local file or folder exists; False for a name that none can have."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False

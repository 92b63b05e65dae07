"""Headers that were opened before: what lies there as it lay is not opened again.

A run over 100,000 tiles resumes without opening one of them. It is plain JSON: only classes that are named here
are made of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox

from storage.errors import EmptyRasterError
from storage.imagery.dates.acquisition import AcquisitionDate
from storage.imagery.description import Band, Overrides
from storage.imagery.identity.versions import FileVersion, version_of
from storage.imagery.sources import Header, Source, absolute, is_remote
from storage.imagery.validity import Validity
from storage.places.bucket import Location
from storage.places.publish import write_json_atomically
from storage.reference_systems import horizontal_crs

_CLASSES = {one.__name__: one for one in (Header, Source, Band, Validity, FileVersion, AcquisitionDate)}
_SHARED = (Band, Validity)
"""What thousands of tiles have alike: written once."""

_one_at_a_time = Lock()
"""Headers are opened by several threads."""


class HeaderCache:
    """Headers of local files by path, with the versions of their files and the time of their folder.

    A header is used again only where every file that it was read from is the same one, nothing came or went beside it,
    and this program's code is the same.
    """

    def __init__(self, path: Location | None) -> None:
        """`path`: JSON file; None = nothing is kept. One that is damaged, or of other code, counts for nothing."""
        self._path = path
        self._entries: dict[str, str] = {}
        self._shared: list[Any] = []
        self._numbers: dict[str, int] = {}
        self._is_saved = True
        if path is None:
            return
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text())
            if content["code"] == _code():
                self._entries, self._shared = dict(content["headers"]), list(content["shared"])
                self._numbers = {json.dumps(value): number for number, value in enumerate(self._shared)}

    def header(self, path: str, said: Overrides, *, look: bool, opened: Callable[[], Header]) -> Header:
        """The header of a file, from `opened` where it is not known.

        Raises:
            EmptyRasterError, InputError: as `opened`.
        """
        if self._path is None or is_remote(path):
            return opened()
        key = json.dumps([absolute(path), said.to_dict(), look])
        folder = _modified(Path(absolute(path)).parent)
        if (entry := self._entries.get(key)) is not None and (known := self._known(entry, folder)) is not None:
            return known
        try:
            header = opened()
        except EmptyRasterError as error:
            version = version_of(path)
            self._put(key, {"folder": folder, "versions": self._plain((version,)), "empty": str(error)})
            raise
        self._put(
            key,
            {"folder": folder, "versions": self._plain(header.source.versions), "header": self._plain(header)},
        )
        return header

    def save(self) -> None:
        """Keep what is known for the next time, in one step."""
        if self._path is not None and not self._is_saved:
            content = {"code": _code(), "shared": self._shared, "headers": self._entries}
            write_json_atomically(self._path, content)
            self._is_saved = True

    def _put(self, key: str, entry: Mapping[str, Any]) -> None:
        self._entries[key] = json.dumps(entry)
        self._is_saved = False

    def _known(self, text: str, folder: int) -> Header | None:
        try:
            entry = json.loads(text)
            versions = self._made(entry["versions"])
            if entry["folder"] != folder or not versions:
                return None
            if any(version.changes(version_of(version.path)) for version in versions):
                return None
            if "empty" not in entry:
                header = self._made(entry["header"])
                return header if isinstance(header, Header) else None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return None
        raise EmptyRasterError(entry["empty"])

    def _plain(self, value: Any) -> Any:
        """A value as JSON; classes, tuples and what is shared as lists that begin with their name."""
        if is_dataclass(value) and not isinstance(value, type):
            name = type(value).__name__
            assert name in _CLASSES
            plain = [name, [self._plain(getattr(value, field.name)) for field in fields(value)]]
            return ["shared", self._number(plain)] if isinstance(value, _SHARED) else plain
        if isinstance(value, tuple | list):
            return ["tuple", [self._plain(inner) for inner in value]]
        if isinstance(value, Mapping):
            return ["dict", {str(name): self._plain(inner) for name, inner in value.items()}]
        if isinstance(value, GeoBox):
            return ["grid", [str(value.crs), list(value.affine)[:6], value.height, value.width]]
        return ["time", value.isoformat()] if isinstance(value, datetime) else value

    def _number(self, plain: list[Any]) -> int:
        text = json.dumps(plain)
        with _one_at_a_time:
            if text not in self._numbers:
                self._numbers[text] = len(self._shared)
                self._shared.append(plain)
            return self._numbers[text]

    def _made(self, plain: Any) -> Any:
        """The opposite of :meth:`_plain`."""
        if not isinstance(plain, list):
            return plain
        kind, content = plain
        if kind == "shared":
            return self._made(self._shared[content])
        if kind == "tuple":
            return tuple(self._made(inner) for inner in content)
        if kind == "dict":
            return {name: self._made(inner) for name, inner in content.items()}
        if kind == "time":
            return datetime.fromisoformat(content)
        if kind == "grid":
            crs, affine, height, width = content
            return GeoBox((height, width), Affine(*affine), horizontal_crs(crs))
        made = _CLASSES[kind]
        return made(**{field.name: self._made(inner) for field, inner in zip(fields(made), content, strict=True)})


NOTHING_KEPT = HeaderCache(None)


def _modified(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@cache
def _code() -> str:
    """SHA-256 of the code that reads headers: what it reads of a file may change with it."""
    total = hashlib.sha256()
    storage = Path(__file__).parent.parent
    for file in sorted([*storage.glob("*.py"), *(storage / "imagery").rglob("*.py")]):
        total.update(file.read_bytes())
    return total.hexdigest()

"""What a user's name of a mosaic stands for: the rasters, in their order."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.errors import InputError
from storage.imagery.names.indexes import indexed_names, is_index
from storage.imagery.names.local import local_name, name_beside
from storage.imagery.names.packed import is_packed, packed_name, rasters_inside
from storage.imagery.names.shown import shown
from storage.imagery.names.text_lists import LIST_SUFFIXES, listed_names
from storage.imagery.names.vrt import files_of_vrt
from storage.imagery.sources import RASTER_SUFFIXES, is_remote, is_zarr
from storage.places.bucket import SCHEME, ObjectPath
from storage.places.client import FIRST_CONTACT
from storage.places.credentials import refuse_credentials

_SIDE_CARS = (".aux.xml", ".ovr", ".msk", ".tfw", ".wld", ".prj", ".hdr", ".rpb", ".imd", ".xml", ".txt", ".md5")
"""Files beside rasters, which a pattern may match and nobody means."""

Stack = tuple[tuple[str, str], ...]
"""(name, path) of the rasters of one place that hold its bands; '' where what names them has no name for a band."""


@dataclass(frozen=True, kw_only=True)
class NamedRasters:
    """The rasters that a name stands for.

    Attributes:
        label: how messages name all of them.
        stacks: each the rasters of one place; what lies on top comes first.
        bands: names of the bands where the rasters themselves have none and what lists them gives them; else empty.
    """

    label: str
    stacks: tuple[Stack, ...]
    bands: tuple[str, ...] = ()


def named_rasters(spec: str | Path | Sequence[str | Path]) -> NamedRasters:
    """The rasters of a file, URL, folder, pattern, list, VRT, tile index, zip or tar file, Zarr group or Python list.

    Raises:
        InputError: naming the spec: there are none, or a name among them that GDAL cannot take.
        ObjectStoreError: a bucket denies it, or does not answer.
    """
    if not isinstance(spec, str | Path):
        paths = [str(path) for path in spec]
        if not paths:
            raise InputError("a mosaic needs at least one file, the list is empty")
        return _named(_label(paths), paths)
    text = local_name(refuse_credentials(str(spec)))
    if text.startswith(SCHEME):
        return _named(text, objects_named(ObjectPath.parse(text)))
    if packed := packed_name(text):
        return _named(text, [packed])
    _require_usable(text)
    if is_remote(text) or is_zarr(text):
        return _named(text, [text])
    path = Path(text)
    if path.is_dir():
        paths = rasters_in_folder(path)
        if not paths:
            raise InputError(f"{shown(text)} is a folder without rasters ({', '.join(RASTER_SUFFIXES)})")
        return _named(text, paths)
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        paths = _listed(path.read_bytes(), path.parent, name=text)
        if not paths:
            raise InputError(f"{shown(text)} lists no file")
        return _named(text, paths)
    if path.is_file() and is_index(text):
        return _named(text, indexed_names(text))
    if not os.path.lexists(path) and glob.has_magic(text):
        paths = matching_paths(text)
        if not paths:
            raise InputError(f"no file matches {shown(text)}")
        return _named(text, paths)
    if text.lower().endswith(".vrt") and path.is_file():
        listed = files_of_vrt(text)
        return NamedRasters(label=text, stacks=listed.stacks, bands=listed.bands)
    return _named(text, [text])


def _named(label: str, paths: Iterable[str]) -> NamedRasters:
    return NamedRasters(label=label, stacks=tuple(stack for path in paths for stack in _stacks(path)))


def _stacks(path: str) -> list[Stack]:
    """What one name of a list stands for: a raster, or the rasters that a local VRT, zip or tar file has."""
    _require_usable(path)
    if is_remote(path):
        return [(("", path),)]
    if path.lower().endswith(".vrt") and Path(path).is_file():
        return list(files_of_vrt(path).stacks)
    if is_packed(path) and Path(path).is_file():
        return [(("", inside),) for inside in rasters_inside(path)]
    if Path(path).is_symlink() and not Path(path).exists():
        raise InputError(f"{shown(path)} is a link to {shown(str(Path(path).readlink()))}, which does not exist")
    if Path(path).is_dir() and not is_zarr(path):
        raise InputError(f"{shown(path)} is a folder, not a raster: name it alone, or the rasters in it")
    return [(("", path),)]


def _require_usable(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name {shown(path)} is no UTF-8, which GDAL needs: rename it") from error
    if "\0" in path:
        raise InputError(f"the name {shown(path)} holds a zero byte")
    if not path.strip():
        raise InputError("the name of a raster is empty")
    if is_remote(path):
        return
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            words = f"{shown(path)[:80]}… is longer than names of files can be: {len(path):,} letters"
            raise InputError(words) from error
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # to open a pipe would wait for whoever writes to it
        raise InputError(f"{shown(path)} is no file but a pipe or a device: write what it gives to a file")


def rasters_in_folder(folder: Path) -> list[str]:
    """Rasters in a folder, by their names' endings and in their order; hidden files and folders in it do not count.

    Raises:
        InputError: one of them is a link to nothing.
    """
    paths = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.lower().endswith(RASTER_SUFFIXES):
                continue
            if entry.is_symlink() and not Path(entry.path).exists():
                target = shown(str(Path(entry.path).readlink()))
                raise InputError(f"{shown(entry.path)} is a link to {target}, which does not exist")
            if entry.is_file():
                paths.append(entry.path)
    return sorted(paths)


def matching_paths(pattern: str) -> list[str]:
    """Paths that match a pattern, in their order; a folder in front that is there is taken by its name.

    Side-cars that match beside rasters, and folders that are no Zarr group, do not count.
    """
    folder, rest = Path(pattern).parts[0], Path(pattern).parts[1:]
    escaped = (
        Path(folder) if not glob.has_magic(folder) else Path(glob.escape(folder) if Path(folder).exists() else folder)
    )
    literal = Path(folder)
    for part in rest:
        literal = literal / part
        escaped = escaped / (glob.escape(part) if os.path.lexists(literal) else part)
    matches = glob.glob(str(escaped), recursive=True)  # noqa: PTH207  the pattern may be absolute
    files = sorted(path for path in matches if not Path(path).is_dir() or is_zarr(path))
    return [path for path in files if not path.lower().endswith(_SIDE_CARS)] or files


def _label(paths: Sequence[str]) -> str:
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def objects_named(path: ObjectPath) -> list[str]:
    """Addresses of the rasters that a name in a bucket stands for: an object, a list, a pattern, a prefix.

    Raises:
        InputError: there are none.
        ObjectStoreError: the store denies it, or does not answer.
    """
    is_list = path.suffix.lower() in LIST_SUFFIXES
    if not is_list and path.facts(patience=FIRST_CONTACT) is not None:
        return [str(path)]
    path.parent.require_answer()
    if is_zarr(str(path)):
        return [str(path)]
    if is_list:
        try:
            paths = _listed(path.read_bytes(), path.parent, name=str(path))
        except FileNotFoundError as error:
            raise InputError(str(error)) from error
        if not paths:
            raise InputError(f"{path} lists no file")
        return paths
    if glob.has_magic(path.key):
        root = path.parent
        while glob.has_magic(root.key):
            root = root.parent
        paths = [str(entry) for entry, _ in root.walk() if fnmatch.fnmatchcase(entry.key, path.key)]
        if not paths:
            raise InputError(f"no object matches {path}")
        return sorted(paths)
    paths = sorted(
        str(entry)
        for entry in path.iterdir()
        if entry.suffix.lower() in RASTER_SUFFIXES and not entry.name.startswith(".")
    )
    if not paths:
        raise InputError(f"{path} does not exist, and there are no rasters below it ({', '.join(RASTER_SUFFIXES)})")
    return paths


def _listed(data: bytes, folder: Path | ObjectPath, *, name: str) -> list[str]:
    names = listed_names(data, path=shown(name))
    return [name_beside(folder, name) for name in names]

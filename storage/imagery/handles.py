"""This thread's open rasters: a handle is good for the versions of files that it was opened with, and no others."""

from __future__ import annotations

import threading
from collections import OrderedDict

from rasterio import DatasetReader

from storage.imagery.identity.versions import FileVersion, content_file, replaced, version_of
from storage.imagery.sources import Source, absolute, open_quietly
from storage.places.gdal import plain_name
from storage.places.web import is_web

_OPEN_PER_THREAD = 16

_Key = tuple[str, tuple[FileVersion, ...]]

_of_thread = threading.local()
_last_opened: dict[str, tuple[FileVersion, ...]] = {}
"""Versions that this process opened each URL with the last time."""


def handle(source: Source) -> DatasetReader:
    """A raster, opened once a thread, as GDAL's handles are not to be shared; call it under the reader's settings.

    Raises:
        ReplacedError: a file lies beside it that was not there when it was planned, and that says something of pixels.
    """
    opened: OrderedDict[_Key, DatasetReader] = _of_thread.__dict__.setdefault("opened", OrderedDict())
    key = source.path, source.versions
    if key not in opened:
        for former in [other for other in opened if other[0] == source.path]:
            opened.pop(former).close()
        opened[key] = _open(source)
        while len(opened) > _OPEN_PER_THREAD:
            opened.popitem(last=False)[1].close()
    opened.move_to_end(key)
    return opened[key]


def _open(source: Source) -> DatasetReader:
    former = _last_opened.get(source.path, source.versions)
    if former != source.versions:
        # another thread may hold the former file, and GDAL keep parts of it under the name of this one: a handle that
        # is closed takes them along
        open_quietly(source.path, source.driver).close()
    dataset = open_quietly(source.path, source.driver)
    if is_web(plain_name(source.path)):
        _last_opened[source.path] = source.versions
    try:
        if source.versions:
            _require_nothing_new(source, [plain_name(file) for file in dataset.files])
    except Exception:
        dataset.close()
        raise
    return dataset


def close_handle(source: Source) -> None:
    """Close this thread's handle on a raster, and let GDAL forget what it has decoded of it."""
    dataset = _of_thread.__dict__.get("opened", {}).pop((source.path, source.versions), None)
    if dataset is not None:
        dataset.close()


def _require_nothing_new(source: Source, files: list[str]) -> None:
    planned = {version.path for version in source.versions}
    for file in files:
        if absolute(content_file(file)) in planned:
            continue
        version = version_of(file)
        if version is not None and version.meaning != "":
            raise replaced(source.path, [f"{file}, which belongs to it, was not there"])

"""Digests of inputs: what has not changed is not read again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from storage.imagery.identity import digests
from storage.imagery.identity.digests import DigestCache
from storage.places.bucket import Location, ObjectPath


@pytest.fixture
def mosaic(tmp_path: Path) -> Any:
    """What a cache sees of a mosaic: a file, and a folder as a Zarr group is one."""
    (tmp_path / "a.tif").write_bytes(b"pixels")
    (tmp_path / "b.zarr" / "c").mkdir(parents=True)
    (tmp_path / "b.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "b.zarr" / "c" / "0").write_bytes(b"chunk")
    files = (str(tmp_path / "a.tif"), str(tmp_path / "b.zarr"))
    for file in (*tmp_path.glob("*.tif"), *(tmp_path / "b.zarr").rglob("*")):
        os.utime(file, (1e9, 1e9))
    return SimpleNamespace(sources=[SimpleNamespace(files=[file], versions=(), parts=()) for file in files])


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of all inputs that are read."""
    names: list[str] = []
    digest = digests._digest

    def watched(path: str) -> str:
        names.append(Path(path).name)
        return digest(path)

    monkeypatch.setattr(digests, "_digest", watched)
    return names


def kept(path: Location, mosaic: Any) -> digests.MosaicDigest:
    cache = DigestCache(path)
    digest = cache.digest(mosaic)
    cache.save()
    return digest


def test_what_has_not_changed_is_not_read(tmp_path: Path, mosaic: Any, read: list[str]) -> None:
    path = tmp_path / "digests.json"
    first = kept(path, mosaic)
    assert first == digests.digest_mosaic(mosaic)
    assert first.files[str(tmp_path / "a.tif")] == hashlib.sha256(b"pixels").hexdigest()
    read.clear()
    assert kept(path, mosaic) == first and read == []
    # other content of the same size at the same time: the inode tells
    stamp = (tmp_path / "a.tif").stat()
    (tmp_path / "other").write_bytes(b"PIXELS")
    (tmp_path / "other").replace(tmp_path / "a.tif")
    os.utime(tmp_path / "a.tif", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert kept(path, mosaic) != first and read == ["a.tif"]
    read.clear()
    second = kept(path, mosaic)
    (tmp_path / "b.zarr" / "c" / "1").write_bytes(b"chunk")
    assert kept(path, mosaic) != second and read[0] == "b.zarr"


def test_a_cache_of_the_version_before_and_a_damaged_one_are_read(tmp_path: Path, mosaic: Any, read: list[str]) -> None:
    path, file = tmp_path / "digests.json", tmp_path / "a.tif"
    stamp = file.stat()
    path.write_text(json.dumps({str(file): [stamp.st_size, stamp.st_mtime_ns, stamp.st_ino, "f" * 64]}))
    assert kept(path, mosaic).files[str(file)] == "f" * 64 and "a.tif" not in read
    for damaged in ("{", "[1]", f'{{"{file}": 3}}'):
        path.write_text(damaged)
        assert kept(path, mosaic) == digests.digest_mosaic(mosaic)


def test_in_a_bucket(bucket: ObjectPath, mosaic: Any, read: list[str]) -> None:
    path = bucket / "run" / "digests.json"
    first, tag = kept(path, mosaic), path.stat().tag
    read.clear()
    assert kept(path, mosaic) == first and read == []
    assert path.stat().tag == tag

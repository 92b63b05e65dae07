"""Versions of files: what is read is of the content that was planned with, wherever it lies."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr

from storage.archives.listing import read_archive
from storage.errors import InputError, ReplacedError, ShortReadError
from storage.imagery.identity import versions
from storage.imagery.identity.digests import DigestCache, digest_mosaic
from storage.imagery.identity.sidecars import meaning_of
from storage.imagery.identity.versions import content_file, version_of
from storage.imagery.mosaics import open_mosaic
from storage.imagery.rasters import read_source
from storage.imagery.sources import Source
from storage.places import web as web_module
from storage.places.bucket import ObjectPath
from storage.places.web import quoted_once
from tests.rasters import geotiff
from tests.web_server import web_server

WHOLE = {"rows": slice(0, 300), "cols": slice(0, 300)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[str]:
    with web_server(folder) as address:
        yield address


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 250, (1, 300, 300)).astype(np.uint8)


def write(path: Path, seed: int) -> Path:
    """Another content of the same size for each seed, with a time of modification a second apart."""
    draft = path.with_name(f".{path.name}")
    geotiff(draft, pixels(seed), tiled=True, blockxsize=64, blockysize=64)
    os.utime(draft, (1e9 + seed, 1e9 + seed))
    draft.replace(path)
    return path


def source_of(path: str | Path) -> Source:
    (source,) = open_mosaic(str(path)).sources
    return source


def read(source: Source) -> np.ndarray:
    return read_source(source, (1,), **WHOLE)[0]


@pytest.mark.parametrize("is_in_place", [True, False], ids=["overwritten", "renamed to"])
def test_a_handle_is_not_that_of_the_file_before(tmp_path: Path, is_in_place: bool) -> None:
    path = write(tmp_path / "a.tif", 1)
    first = source_of(path)
    assert np.array_equal(read(first), pixels(1))
    other = write(tmp_path / "b.tif", 2)
    if is_in_place:
        path.write_bytes(other.read_bytes())
    else:
        other.replace(path)
    with pytest.raises(ReplacedError, match=r"a\.tif was replaced since the run was planned \(modified .*: start the"):
        read(first)
    assert np.array_equal(read(source_of(path)), pixels(2)), "planned anew in the same process"
    path.unlink()
    with pytest.raises(ReplacedError, match=r"a\.tif was replaced since the run was planned \(it is gone\)"):
        read(first)


def test_an_inode_counts_on_the_machine_that_planned(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", 1)
    source = source_of(path)
    stamp = path.stat()
    write(tmp_path / "b.tif", 2).replace(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size
    with pytest.raises(ReplacedError, match="another file stands in its place"):
        read(source)
    elsewhere = replace(source, versions=tuple(replace(version, machine="another") for version in source.versions))
    assert read(pickle.loads(pickle.dumps(elsewhere))).shape == (1, 300, 300)


def test_what_comes_to_lie_beside_a_file_counts_where_it_says_something(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", 1)
    note = Path(f"{path}.aux.xml")
    source = source_of(path)
    note.write_text(
        '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata></PAMRasterBand>'
        "</PAMDataset>"
    )
    assert np.array_equal(read(source), pixels(1))
    with_note = source_of(path)
    assert (
        digest_mosaic(open_mosaic(path)).sha256 == digest_mosaic(replace(open_mosaic(path), sources=(source,))).sha256
    )
    note.write_text('<PAMDataset><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>')
    with pytest.raises(ReplacedError, match=r"aux\.xml was replaced .*what it says of the pixels"):
        read(with_note)
    with ThreadPoolExecutor(1) as another, pytest.raises(ReplacedError, match="which belongs to it, was not there"):
        another.submit(read, source).result()  # a thread that has not opened it yet


def test_what_a_side_car_says() -> None:
    band = '<PAMDataset><PAMRasterBand band="1">{}</PAMRasterBand></PAMDataset>'
    statistics = '<Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata><Histograms><HistItem/></Histograms>'
    assert meaning_of(band.format(statistics).encode()) == meaning_of(b"<PAMDataset />") == ""
    said = {
        meaning_of(band.format(words).encode())
        for words in (
            "<NoDataValue>0</NoDataValue>",
            "<NoDataValue>1</NoDataValue>",
            "<Scale>2</Scale>",
            "<Offset>2</Offset>",
            "<Description>red</Description>",
            "<ColorInterp>Red</ColorInterp>",
        )
    } | {meaning_of(b"<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")}
    assert len(said) == 7 and "" not in said
    assert meaning_of(band.format(f"{statistics}\n  <Scale>2</Scale>\n").encode()) in said
    assert meaning_of(b"no XML") != meaning_of(b"nor this") != ""


@pytest.mark.parametrize("kind", ["etag", "dated", "nohead", "lagging"])
def test_over_http(web: str, folder: Path, kind: str) -> None:
    name = f"{kind} ä.tif"
    write(folder / name, 1)
    first = source_of(f"{web}/{kind}/{name}")
    if kind == "lagging":
        assert np.array_equal(read_source(first, (1,), rows=slice(9), cols=slice(9))[0], pixels(1)[:, :9, :9])
        write(folder / name, 2)
        with pytest.raises(
            ShortReadError, match=r"lagging ä\.tif.* cannot be read: Read failed"
        ):  # GDAL's own request tells
            read(first)
        return
    assert np.array_equal(read(first), pixels(1))
    digest = digest_mosaic(open_mosaic(f"{web}/{kind}/{name}"))
    assert digest == digest_mosaic(open_mosaic(quoted_once(f"{web}/{kind}/{name}")))
    write(folder / name, 2)
    what = "entity tag" if kind != "dated" else "modified Sun, 09 Sep 2001"
    with pytest.raises(ReplacedError, match=rf"{kind}%20%C3%A4\.tif was replaced since the run was planned \({what}"):
        read(first)
    with pytest.raises(InputError, match="was replaced since the run was planned"):
        digest_mosaic(replace(open_mosaic(f"{web}/{kind}/{name}"), sources=(first,)))
    assert np.array_equal(read(source_of(f"{web}/{kind}/{name}")), pixels(2)), "and nothing of GDAL's cache"
    assert digest_mosaic(open_mosaic(f"{web}/{kind}/{name}")) != digest


def test_another_thread_holds_the_former_file_of_a_url(web: str, folder: Path) -> None:
    write(folder / "held.tif", 1)
    address, go, done = f"{web}/etag/held.tif", threading.Event(), threading.Event()

    def hold() -> None:
        read(source_of(address))
        done.set()
        go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert done.wait(60)
    write(folder / "held.tif", 2)
    source = source_of(address)
    assert np.array_equal(read(source), pixels(2))
    go.set()
    thread.join()


def test_a_server_that_names_no_version_is_read_for_its_digest(web: str, folder: Path) -> None:
    write(folder / "bare.tif", 1)
    first = digest_mosaic(open_mosaic(f"{web}/bare/bare.tif"))
    assert first == digest_mosaic(open_mosaic(f"{web}/bare/bare.tif"))
    write(folder / "bare.tif", 2)
    second = digest_mosaic(open_mosaic(f"{web}/bare/bare.tif"))
    assert second != first
    assert list(second.files.values()) == [digest_mosaic(open_mosaic(folder / "bare.tif")).sha256]


def test_a_server_that_is_busy_for_a_moment_is_asked_again(web: str, folder: Path) -> None:
    write(folder / "busy.tif", 1)
    assert np.array_equal(read(source_of(f"{web}/busy/busy.tif")), pixels(1))


def test_who_does_not_answer_is_refused_within_seconds(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "_AT_ONCE_S", 2.0)
    monkeypatch.setattr(versions, "FIRST_CONTACT", timedelta(seconds=2))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for ask in (
            lambda: open_mosaic(f"{address}/a.tif"),
            lambda: open_mosaic([f"{web}/silent/a.tif", f"{web}/silent/b.tif"]),
            lambda: read_archive(f"{address}/catalog.json"),
            lambda: read_archive(f"{web}/silent/catalog.json"),
        ):
            started = time.monotonic()
            with pytest.raises(InputError, match=r"does not answer|refused"):
                ask()
            assert time.monotonic() - started < 5
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "none")
        for endpoint in (address, f"{web}/silent"):
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            started = time.monotonic()
            with pytest.raises(InputError, match="does not answer"):
                open_mosaic(["s3://bucket/a.tif"])
            assert time.monotonic() - started < 10


def test_an_object_that_was_replaced(bucket: ObjectPath, tmp_path: Path) -> None:
    path = bucket / "a.tif"
    path.upload(write(tmp_path / "a.tif", 1))
    first = source_of(str(path))
    assert np.array_equal(read(first), pixels(1))
    path.upload(write(tmp_path / "a.tif", 1))
    assert np.array_equal(read(first), pixels(1)), "the same content again"
    path.upload(write(tmp_path / "a.tif", 2))
    with pytest.raises(ReplacedError, match=r"s3://.*a\.tif was replaced since the run was planned \(entity tag"):
        read(first)
    assert np.array_equal(read(source_of(str(path))), pixels(2))


def test_a_chunk_of_a_zarr_group_that_was_replaced(tmp_path: Path) -> None:
    place = {"y": 5_600_000 - (np.arange(300) + 0.5), "x": 500_000 + (np.arange(300) + 0.5)}
    image = xr.DataArray(pixels(1), dims=("band", "y", "x"), coords=place, name="image").rio.write_crs("EPSG:32631")
    image.chunk({"y": 100, "x": 100}).to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    source = source_of(tmp_path / "a.zarr")
    assert np.array_equal(read(source), pixels(1))
    chunk = tmp_path / "a.zarr" / "image" / "c" / "0" / "2" / "2"
    other = tmp_path / "a.zarr" / "image" / "c" / "0" / "0" / "0"
    chunk.write_bytes(other.read_bytes())
    os.utime(chunk, ns=(time.time_ns() + 10**9,) * 2)
    assert np.array_equal(read_source(source, (1,), rows=slice(0, 200), cols=slice(0, 300))[0], pixels(1)[:, :200])
    with pytest.raises(ReplacedError, match=r"image/c/0/2/2 was replaced since the run was planned \(modified"):
        read(source)


def test_names_of_members_of_archives(tmp_path: Path) -> None:
    (tmp_path / "a.zip").mkdir()
    (tmp_path / "a.zip" / "b.tar").write_bytes(b"archive")
    for path, archive in (
        (f"/vsitar/{tmp_path}/a.zip/b.tar/x/y.tif", f"{tmp_path}/a.zip/b.tar"),
        (f"/vsitar/{{{tmp_path}/a.zip/b.tar}}/y.tif", f"{tmp_path}/a.zip/b.tar"),
        ("/vsizip//vsicurl/http://host/a.zip/y.tif", "http://host/a.zip"),
        ("/vsizip//vsizip//vsis3/bucket/a.zip/b.zip/y.tif", "s3://bucket/a.zip"),
        ("/vsigzip//data/y.tif.gz", "/data/y.tif.gz"),
        ("/data/y.tif", "/data/y.tif"),
        ("/vsicurl/http://host/y.tif", "http://host/y.tif"),
    ):
        assert content_file(path) == archive


def test_addresses_are_quoted_once() -> None:
    for address, quoted in (
        ("http://host/a b.tif", "http://host/a%20b.tif"),
        ("http://host/a%20b.tif", "http://host/a%20b.tif"),
        ("http://host/100%.tif", "http://host/100%25.tif"),
        ("https://höst/ä.tif?x=ü&y=1", "https://xn--hst-sna/%C3%A4.tif?x=%C3%BC&y=1"),
        ("http://[::1]:80/[1].tif", "http://[::1]:80/%5B1%5D.tif"),
        ("/data/a b.tif", "/data/a b.tif"),
    ):
        assert quoted_once(address) == quoted == quoted_once(quoted)


def test_a_file_that_is_too_young_is_hashed_again(tmp_path: Path) -> None:
    path, kept = tmp_path / "a.tif", tmp_path / "digests.json"
    path.write_bytes(b"first")
    cache = DigestCache(kept)
    first = cache.digest_files([str(path)])
    stamp = path.stat()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as within one tick of a coarse clock
    assert cache.digest_files([str(path)]) != first
    os.utime(path, (1e9, 1e9))
    assert version_of(str(path)) is not None
    second = cache.digest_files([str(path)])
    cache.save()
    with path.open("r+b") as file:
        file.write(b"third")
    os.utime(path, (1e9, 1e9))
    assert DigestCache(kept).digest_files([str(path)]) == second, "and one that has rested is not"

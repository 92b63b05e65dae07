"""Files that are replaced, touched or looked at by a viewer: the result is of the content that its directory names."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr

from flows.cluster.config import ClusterConfig
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from flows.run.directory import DifferentRunError, RunDirectory
from flows.run.errors import FailedBlocksError
from storage.errors import InputError
from storage.imagery.identity.digests import DigestCache
from tests.rasters import geotiff
from tests.web_server import web_server

STATISTICS = (
    '<PAMDataset><Metadata domain="Esri"><MDI key="PyramidResamplingType">NEAREST</MDI></Metadata>'
    '<PAMRasterBand band="1"><Histograms><HistItem><HistMin>0</HistMin></HistItem></Histograms>'
    '<Metadata><MDI key="STATISTICS_MEAN">109</MDI></Metadata></PAMRasterBand></PAMDataset>'
)
NODATA = '<PAMDataset><PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>'


def write(path: Path, seed: int) -> Path:
    """Three bands of 128 × 128 px, another content for each seed; it appears in one step, with an inode of its own."""
    draft = path.with_name(f"draft-{path.name}")
    geotiff(draft, np.random.default_rng(seed).integers(1, 250, (3, 128, 128)).astype(np.uint8))
    draft.replace(path)
    return path


@pytest.fixture
def request_of(tmp_path: Path, workers: ClusterConfig) -> Callable[..., DetectRequest]:
    """A request for two mosaics of four blocks, by a method without training, on workers that stay."""
    write(tmp_path / "before_20190601.tif", 1)
    write(tmp_path / "after_20210601.tif", 2)

    def request(**changes: Any) -> DetectRequest:
        values = {
            "before": str(tmp_path / "before_20190601.tif"),
            "after": str(tmp_path / "after_20210601.tif"),
            "output": tmp_path / "run",
            "bundle": "cva",
            "block": 64,
            "cluster": workers,
            "retries": 0,
        }
        return DetectRequest.model_validate({**values, **changes})

    return request


def image(output: Path, date: int) -> np.ndarray:
    """Ingested pixels (band, y, x) of a date."""
    return np.asarray(zarr.open_array(output / "run.zarr" / "image", mode="r")[date])


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 250, (3, 128, 128)).astype(np.uint8)


def test_a_file_that_is_replaced_between_two_runs_of_one_cluster_is_read_anew(
    request_of: Callable[..., DetectRequest], tmp_path: Path
) -> None:
    run_detection(request_of())
    write(tmp_path / "after_20210601.tif", 3)
    with pytest.raises(DifferentRunError) as refused:
        run_detection(request_of())
    changed = [line for line in str(refused.value).splitlines() if line.startswith("  ")]
    assert len(changed) == 1 and "after_20210601.tif: its content, SHA-256 " in changed[0], changed
    run_detection(request_of(output=tmp_path / "second"))
    assert np.array_equal(image(tmp_path / "second", 1), pixels(3))
    assert np.array_equal(image(tmp_path / "run", 1), pixels(2)), "and the first one is left as it is"


@pytest.mark.parametrize("moment", ["before the digest", "after the digest", "while it is ingested"])
def test_whenever_it_is_replaced_the_run_is_of_one_content_or_fails_by_name(
    request_of: Callable[..., DetectRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    after, counted = tmp_path / "after_20210601.tif", []
    with monkeypatch.context() as fault:

        def replacing(call: Callable[..., Any], *, first: bool, at: int = 1) -> Callable[..., Any]:
            def replace(*arguments: Any, **named: Any) -> Any:
                counted.append(1)
                if first and len(counted) == at:
                    write(after, 3)
                result = call(*arguments, **named)
                if not first and len(counted) == at:
                    write(after, 3)
                return result

            return replace

        if moment == "before the digest":
            fault.setattr(DigestCache, "digest", replacing(DigestCache.digest, first=True, at=2))
        elif moment == "after the digest":
            fault.setattr(DigestCache, "digest", replacing(DigestCache.digest, first=False, at=2))
        else:
            append = RunDirectory.update  # what the driver does between ingest and infer
            fault.setattr(RunDirectory, "update", replacing(append, first=True, at=1))
        if moment == "before the digest":
            with pytest.raises(InputError, match=r"after_20210601\.tif was replaced since the run was planned \("):
                run_detection(request_of())
            assert not (tmp_path / "run" / "run.json").exists()
        elif moment == "after the digest":
            with pytest.raises(FailedBlocksError, match="start the same command again") as failed:
                run_detection(request_of())
            assert len(failed.value.failed) == 4 and all(
                "after_20210601.tif was replaced" in error for error in failed.value.failed.values()
            )
        else:  # all blocks are read by then: the run is of the first content
            run_detection(request_of())
            assert np.array_equal(image(tmp_path / "run", 1), pixels(2))
    if moment == "before the digest":
        run_detection(request_of())
        assert np.array_equal(image(tmp_path / "run", 1), pixels(3))
        return
    with pytest.raises(DifferentRunError, match=r"after_20210601\.tif: its content"):
        run_detection(request_of())


def test_a_file_that_was_only_touched_is_gone_on_with_by_the_same_command(
    request_of: Callable[..., DetectRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, digest = tmp_path / "after_20210601.tif", DigestCache.digest

    def touching(cache: DigestCache, mosaic: Any) -> Any:
        result = digest(cache, mosaic)
        if mosaic.label == str(after):
            os.utime(after, ns=(10**18, 10**18))
        return result

    with monkeypatch.context() as fault:
        fault.setattr(DigestCache, "digest", touching)
        with pytest.raises(FailedBlocksError, match=r"modified .* → 2001-09-09T01:46:40\.000"):
            run_detection(request_of())
    run_detection(request_of())
    assert np.array_equal(image(tmp_path / "run", 1), pixels(2))


def test_a_viewer_and_another_spelling_make_no_other_run(
    request_of: Callable[..., DetectRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_detection(request_of(before="before_20190601.tif"))
    key = json.loads((tmp_path / "run" / "run.json").read_text())["key"]
    store = (tmp_path / "run" / "run.zarr" / "zarr.json").stat().st_mtime_ns
    note = Path("after_20210601.tif.aux.xml")
    note.write_text(STATISTICS)
    Path("folder").mkdir()
    Path("folder/link_20190601.tif").symlink_to(tmp_path / "before_20190601.tif")
    for before in ("./before_20190601.tif", "folder/../before_20190601.tif", "folder/link_20190601.tif"):
        run_detection(request_of(before=before))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open("after_20210601.tif", "r+") as opened:
        opened.build_overviews([2])
    assert Path("after_20210601.tif.ovr").exists()
    run_detection(request_of())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["key"] == key
    assert (tmp_path / "run" / "run.zarr" / "zarr.json").stat().st_mtime_ns == store
    note.write_text(NODATA)
    with pytest.raises(DifferentRunError, match=r"after_20210601\.tif\.aux\.xml: it is new") as refused:
        run_detection(request_of())
    assert "before" not in str(refused.value) and "inputs" not in str(refused.value)


@pytest.mark.parametrize("is_beside", [False, True], ids=["alone", "with statistics beside it"])
def test_a_directory_with_names_in_its_identity_resumes(
    request_of: Callable[..., DetectRequest], tmp_path: Path, is_beside: bool
) -> None:
    run_detection(request_of())
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    identity = record["identity"]
    after = record["files"].keys() - {str(tmp_path / "before_20190601.tif")}
    assert after == {str(tmp_path / "after_20210601.tif")}
    if is_beside:  # its bytes counted
        note = tmp_path / "after_20210601.tif.aux.xml"
        note.write_text(STATISTICS)
        lines = [
            f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n"
            for file in (tmp_path / "after_20210601.tif", note)
        ]
        identity["inputs"][1]["sha256"] = hashlib.sha256("".join(lines).encode() + b"\n").hexdigest()
    for entry, label in zip(identity["inputs"], ("old/before.tif", "old/after.tif"), strict=True):
        entry["mosaic"] = label
    identity["bundle"]["name"] = "cva"
    record["key"] = "k" * 64
    path.write_text(json.dumps(record))
    run_detection(request_of())
    assert json.loads(path.read_text())["key"] == "k" * 64
    write(tmp_path / "before_20190601.tif", 4)
    with pytest.raises(DifferentRunError, match=r"before_20190601\.tif: its content"):
        run_detection(request_of())


def test_a_member_of_an_archive_has_its_content(request_of: Callable[..., DetectRequest], tmp_path: Path) -> None:
    for name, seeds in (("a.zip", (1, 2)), ("b.zip", (1, 3))):
        folder = tmp_path / "members"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for member, seed in zip(("x.tif", "y.tif"), seeds, strict=True):
            write(folder / member, seed)
        shutil.make_archive(str((tmp_path / name).with_suffix("")), "zip", folder)
    (tmp_path / "b.zip").rename(tmp_path / "later.zip")
    asked: Mapping[str, Any] = {"before": f"/vsizip/{tmp_path}/a.zip/x.tif", "after": f"/vsizip/{tmp_path}/a.zip/y.tif"}
    run_detection(request_of(**asked))
    assert np.array_equal(image(tmp_path / "run", 1), pixels(2))
    with pytest.raises(DifferentRunError, match="its content"):  # the other member
        run_detection(request_of(**{**asked, "after": asked["before"]}))
    (tmp_path / "later.zip").replace(tmp_path / "a.zip")
    with pytest.raises(DifferentRunError, match=r"a\.zip/y\.tif: its content"):
        run_detection(request_of(**asked))
    run_detection(request_of(**asked, output=tmp_path / "second"))
    assert np.array_equal(image(tmp_path / "second", 1), pixels(3))


def test_what_a_server_without_versions_replaced_meanwhile_is_quarantined(
    request_of: Callable[..., DetectRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = DigestCache.digest

    def replacing(cache: DigestCache, mosaic: Any) -> Any:
        result = digest(cache, mosaic)
        if mosaic.label.startswith("http"):
            write(tmp_path / "after_20210601.tif", 3)
        return result

    with web_server(tmp_path) as web:
        asked = request_of(after=f"{web}/bare/after_20210601.tif")
        with monkeypatch.context() as fault:
            fault.setattr(DigestCache, "digest", replacing)
            with pytest.raises(FailedBlocksError, match=r"after_20210601\.tif was replaced since .*SHA-256"):
                run_detection(asked)
        with pytest.raises(DifferentRunError, match=r"after_20210601\.tif: its content"):
            run_detection(asked)
        write(tmp_path / "after_20210601.tif", 2)
        run_detection(asked)
        assert np.array_equal(image(tmp_path / "run", 1), pixels(2)), "the content that the run was begun with is back"

"""Directories that the version before this one wrote: read, resumed, and finished to the same bytes.

`former.tar.xz` holds two mosaics of 128 px, three dates and a bundle of random weights, and what commit e89b407 made
of them: a run that is finished, one of a method without training that was killed after two of its four blocks, and an
archive of two dates that was killed in the middle of the third. `expected.json` has the SHA-256 of each probability
array as that commit finished it.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from flows.archive.request import ReprocessRequest
from flows.archive.run import run_reprocessing
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from tiling.ledger import Ledger

_SMALL = {"block": 64, "cluster": {"workers": 1, "lanes": 1}}
_NETWORK = {**_SMALL, "bundle": "./small.safetensors", "precision": "float32", "window": 64, "overlap": 16}


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The archive is unpacked, and the current folder is where the commands were called."""
    with tarfile.open(Path(__file__).with_name("former.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return dict(json.loads(Path("expected.json").read_text()))


def sha256(store: Path) -> str:
    """Digest of a probability array (interval, y, x)."""
    pixels = zarr.open_array(store / "change_probability", mode="r")[0]
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def files_of(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of modification of all files but those that tell what a run is."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("run.json", "digests.json", ".lock")
    }


def test_a_finished_run_is_finished(expected: dict[str, str]) -> None:
    before = files_of(Path("run"))
    summary = run_detection(
        DetectRequest.model_validate({"before": "before.tif", "after": "after.tif", "output": "run", **_NETWORK})
    )
    assert summary.polygons and sha256(Path("run/run.zarr")) == expected["run"]
    assert files_of(Path("run")) == before, "nothing was computed or made again"


def test_a_killed_run_goes_on_to_the_same_bytes(expected: dict[str, str]) -> None:
    done = [entry.block for entry in Ledger(Path("statistics/ledger"), "infer").entries("done")]
    lines = Path("statistics/ledger/infer.jsonl").read_text().splitlines()
    run_detection(
        DetectRequest.model_validate(
            {"before": "before.tif", "after": "after.tif", "output": "statistics", "bundle": "cva", **_SMALL}
        )
    )
    assert sha256(Path("statistics/run.zarr")) == expected["statistics"]
    now = Path("statistics/ledger/infer.jsonl").read_text().splitlines()
    assert len(done) == 2 and now[:2] == lines and len(now) == 4, "what was finished is not computed again"
    assert all("digest" in json.loads(line)["facts"] for line in now)
    assert Path("statistics/change_probability.tif").exists()


def test_a_killed_archive_goes_on_to_the_same_bytes(expected: dict[str, str], tmp_path: Path) -> None:
    # what a viewer leaves beside a date makes it no other date
    Path("dates/20190615.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata></PAMRasterBand>'
        "</PAMDataset>"
    )
    (version,) = Path("archive/versions").iterdir()
    first, second = sorted(name for name in expected if name.startswith("20"))
    images = files_of(Path("archive/images"))
    made_before = files_of(version / "cells/cell-r000c000" / first)
    assert not (version / "cells/cell-r000c000" / second).exists()
    begun = json.loads((version / "run.json").read_text())["executions"][second]
    run_reprocessing(ReprocessRequest.model_validate({"archive": "dates", "output": "archive", **_NETWORK}))
    assert [path.name for path in Path("archive/versions").iterdir()] == [version.name], "it is the same version"
    assert files_of(version / "cells/cell-r000c000" / first) == made_before
    assert all(files_of(Path("archive/images"))[path] == known for path, known in images.items()), (
        "no date is read again"
    )
    assert sha256(version / f"pairs/{first}.zarr") == expected[first]
    run_reprocessing(ReprocessRequest.model_validate({"archive": "dates", "output": "clean", **_NETWORK}))
    (clean,) = Path("clean/versions").iterdir()
    assert sha256(version / f"pairs/{second}.zarr") == sha256(clean / f"pairs/{second}.zarr")
    if json.loads((clean / "run.json").read_text())["executions"][second] == begun:  # else another machine's rounding
        assert sha256(version / f"pairs/{second}.zarr") == expected[second]

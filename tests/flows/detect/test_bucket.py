"""The main job over a bucket of a real server: killed and resumed to the bytes of a local run; faults of the store."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import obstore
import psutil
import pystac
import pytest
import rasterio
import xarray as xr
from shapely.geometry import box, mapping
from zarr.storage import ObjectStore

from flows.archive.flow import reprocess_archive
from flows.archive.request import ReprocessRequest
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from storage.errors import IntegrityError
from storage.places.bucket import ObjectPath
from storage.synthetic.pair import SyntheticPair
from tests.flows.conftest import Dasnet, Finished, request_for
from tests.s3_server import BUCKET, OWNER, READER, S3Server, use

pytestmark = pytest.mark.usefixtures("workers_spawn")  # which have the credentials of the test

BLOCK, TOTAL = 192, 4 * 5
"""Side in pixels, and how many the pair has."""


def probability(server: S3Server, output: ObjectPath) -> np.ndarray:
    """Read by a client of its own."""
    store = server.store()
    listed = [entry["path"] for batch in obstore.list(store, f"{output.key}/run.zarr") for entry in batch]
    assert listed
    group = ObjectStore(type(store)(BUCKET, prefix=f"{output.key}/run.zarr", **_client(server)))
    return xr.open_zarr(group, mask_and_scale=False)["change_probability"].to_numpy()


def _client(server: S3Server) -> dict[str, object]:
    return {
        "endpoint": server.endpoint,
        "access_key_id": OWNER[0],
        "secret_access_key": OWNER[1],
        "region": "us-east-1",
        "client_options": {"allow_http": True},
    }


def local_probability(directory: Path) -> np.ndarray:
    return xr.open_zarr(directory / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()


def finished_blocks(output: ObjectPath) -> int:
    return sum(segment.read_bytes().count(b"\n") for segment in (output / "ledger" / "infer").iterdir())


def wait_for_blocks(output: ObjectPath, count: int, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while finished_blocks(output) < count:
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def inputs(bucket: ObjectPath, pair: SyntheticPair) -> tuple[ObjectPath, ObjectPath]:
    (bucket / "before.tif").upload(pair.before)
    (bucket / "after.tif").upload(pair.after)
    return bucket / "before.tif", bucket / "after.tif"


@pytest.mark.timeout(1800)
def test_killed_worker_and_killed_driver_resume_to_the_bytes_of_a_local_run(
    run: Path,
    inputs: tuple[ObjectPath, ObjectPath],
    bucket: ObjectPath,
    s3_server: S3Server,
    dasnet_process: Dasnet,
) -> None:
    output = bucket / "run"
    arguments = ["detect", *inputs, "--output", output, "--block", BLOCK, "--workers", 2]
    driver = start(*arguments)
    try:
        wait_for_blocks(output, 1, driver)
        workers = [
            p for p in psutil.Process(driver.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())
        ]
        os.kill(workers[0].pid, signal.SIGKILL)
        wait_for_blocks(output, 4, driver)
    finally:
        driver.kill()
        driver.wait()
    kept = finished_blocks(output)
    assert 4 <= kept < TOTAL
    assert not (output / "change_probability.tif").exists()
    state = dasnet_process("status", output)
    assert state.code == 0, state.err
    assert f"{kept} of {TOTAL} blocks done" in state.out
    resumed = dasnet_process(*arguments, timeout=600)
    assert resumed.code == 0, resumed.err
    assert finished_blocks(output) == TOTAL, "no finished block is computed again"
    assert np.array_equal(probability(s3_server, output), local_probability(run))
    assert "Traceback" not in resumed.err
    _products_agree(output, run)
    _no_secret_was_kept(output, s3_server, resumed)
    assert "state        finished" in dasnet_process("status", output).out


def _products_agree(output: ObjectPath, run: Path) -> None:
    names = {path.name for path in output.iterdir()}
    assert names == {
        "run.json",
        "run.zarr",
        "digests.json",
        "ledger",
        "change_probability.tif",
        "changes.parquet",
        "quicklook.png",
        "report.html",
        "item.json",
    }, "no draft, no lock"
    content = (output / "change_probability.tif").read_bytes()
    with (
        rasterio.MemoryFile(content) as file,
        file.open() as there,
        rasterio.open(run / "change_probability.tif") as local,
    ):
        assert np.array_equal(there.read(1), local.read(1))
        assert there.profile == local.profile
    assert (output / "quicklook.png").read_bytes().startswith(b"\x89PNG")
    item = pystac.Item.from_dict(json.loads((output / "item.json").read_text()))
    assert len(item.assets) == 4
    for asset in item.assets.values():
        content = (output / asset.href.removeprefix("./")).read_bytes()
        assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()


def _no_secret_was_kept(output: ObjectPath, server: S3Server, ended: Finished) -> None:
    kept = [path for path, _ in output.walk() if "/c/" not in path.key]
    assert len(kept) > 10
    for text in (*(path.read_bytes() for path in kept), ended.out.encode(), ended.err.encode()):
        assert not any(secret.encode() in text for secret in (*OWNER, server.endpoint))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_cannot_work_is_refused_early(
    inputs: tuple[ObjectPath, ObjectPath],
    bucket: ObjectPath,
    pair: SyntheticPair,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    dasnet_process: Dasnet,
) -> None:
    use(s3_server, monkeypatch, READER)
    ended = dasnet_process("detect", *inputs, "--output", bucket / "run")
    assert ended.code == 2, ended.err
    assert "access denied" in ended.err and str(bucket / "run") in ended.err
    use(s3_server, monkeypatch)  # who may list nothing is not told what there is not
    ended = dasnet_process("detect", "s3://nowhere/before.tif", pair.after, "--output", bucket / "run")
    assert ended.code == 2, ended.err
    assert "there is no bucket nowhere" in ended.err
    ended = dasnet_process("detect", "https://user:hush@example.org/before.tif", pair.after, "--output", bucket / "run")
    assert ended.code == 2, ended.err
    assert "hush" not in ended.err + ended.out
    ended = dasnet_process("status", bucket / "run")
    assert ended.code == 2, ended.err
    assert "holds no run" in ended.err
    assert list((bucket / "run").walk()) == []


def test_the_form_takes_both_kinds_of_directory() -> None:
    request = DetectRequest.model_validate({"before": "a.tif", "after": "b.tif", "output": "s3://maps/run"})
    assert request.output == ObjectPath("maps", "run")
    assert DetectRequest.model_validate(request.model_dump(mode="json")) == request
    assert DetectRequest.model_validate_json(request.model_dump_json()) == request
    assert request.model_copy(update={"output": Path("run")}).model_dump(mode="json")["output"] == "run"
    assert DetectRequest.model_json_schema()["properties"]["output"]["type"] == "string"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", ["inputs", "output"])
def test_local_and_bucket_mixed(
    run: Path,
    pair: SyntheticPair,
    inputs: tuple[ObjectPath, ObjectPath],
    bucket: ObjectPath,
    tmp_path: Path,
    s3_server: S3Server,
    where: str,
) -> None:
    if where == "inputs":
        run_detection(request_for(pair, tmp_path / "run", before=str(inputs[0]), after=str(inputs[1])))
        found = local_probability(tmp_path / "run")
    else:
        run_detection(request_for(pair, bucket / "run"))
        found = probability(s3_server, bucket / "run")
    assert np.array_equal(found, local_probability(run))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_lost_shard_is_found_and_computed_again(
    run: Path, pair: SyntheticPair, bucket: ObjectPath, s3_server: S3Server
) -> None:
    output = bucket / "run"
    run_detection(request_for(pair, output))
    (output / "ledger" / "products.json").unlink()
    (output / "run.zarr" / "change_probability" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(IntegrityError, match="r00000c00000"):
        run_detection(request_for(pair, output))
    run_detection(request_for(pair, output))
    assert np.array_equal(probability(s3_server, output), local_probability(run))


def test_a_method_without_training_leaves_no_tallies_in_a_bucket(
    pair: SyntheticPair, bucket: ObjectPath, s3_server: S3Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_detection(request_for(pair, tmp_path / "run", bundle="cva"))
    run_detection(request_for(pair, bucket / "run", bundle="cva"))
    gc.collect()
    assert np.array_equal(probability(s3_server, bucket / "run"), local_probability(tmp_path / "run"))
    assert not [path for path, _ in (bucket / "run").walk() if "statistics-" in path.key]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_archive_in_a_bucket_has_the_bytes_of_a_run(
    run: Path, pair: SyntheticPair, inputs: tuple[ObjectPath, ObjectPath], bucket: ObjectPath, tmp_path: Path
) -> None:
    with rasterio.open(pair.before) as file:
        bounds = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    items = []
    for path, year in zip(inputs, (2019, 2024), strict=True):
        item = pystac.Item(
            id=path.stem,
            geometry=mapping(box(*bounds)),
            bbox=list(bounds),
            datetime=datetime(year, 6, 1, tzinfo=UTC),
            properties={},
        )
        item.add_asset("image", pystac.Asset(href=f"./{path.name}", media_type=pystac.MediaType.COG, roles=["data"]))
        items.append(item)
    collection = pystac.ItemCollection(items).to_dict(transform_hrefs=False)
    (bucket / "items.json").write(json.dumps(collection).encode())
    request = ReprocessRequest.model_validate(
        {"archive": f"{bucket}/items.json", "output": tmp_path / "archive", "block": 512, "cluster": {"workers": 1}}
    )
    version = reprocess_archive(request).products["cube"].parent
    (found,) = version.glob("cells/*/*/change_probability.tif")
    with rasterio.open(found) as cog:
        assert np.array_equal(cog.read(1), local_probability(run)[0])


@pytest.fixture
def mortal_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    server = S3Server(tmp_path / "server")
    server.start()
    use(server, monkeypatch)
    yield server
    server.kill()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_store_that_is_killed_and_comes_back_costs_time_alone(
    run: Path, pair: SyntheticPair, mortal_server: S3Server
) -> None:
    output = ObjectPath(BUCKET, "run")
    arguments = ["detect", pair.before, pair.after, "--output", output, "--block", BLOCK, "--workers", 2]
    driver = start(*arguments)
    try:
        wait_for_blocks(output, 5, driver)
        mortal_server.kill()
        time.sleep(5)
        mortal_server.start()
        assert driver.wait(timeout=600) == 0
    finally:
        driver.kill()
        driver.wait()
    assert np.array_equal(probability(mortal_server, output), local_probability(run))

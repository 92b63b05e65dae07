"""The main job, end to end: a real Prefect server, a real Dask cluster, real files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import psutil
import pystac
import pytest
import rasterio
import xarray as xr
from rio_cogeo import cog_validate

from flows.cluster.config import ClusterConfig
from flows.detect.run import run_detection
from flows.run.directory import DifferentRunError
from flows.run.errors import FailedBlocksError
from storage.errors import IntegrityError
from storage.synthetic.pair import SyntheticPair
from tests.flows.conftest import Dasnet, request_for
from tiling.grid import BlockGrid, WindowLattice
from tiling.ledger import Ledger


def probability(directory: Path) -> np.ndarray:
    return xr.open_zarr(directory / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()


def infer_lines(directory: Path) -> int:
    return len((directory / "ledger" / "infer.jsonl").read_bytes().splitlines())


def test_products_are_there_and_agree_with_the_store(run: Path, pair: SyntheticPair) -> None:
    stored = probability(run)[0]
    cog = run / "change_probability.tif"
    valid, errors, _ = cog_validate(cog)
    assert valid, errors
    with rasterio.open(cog) as result, rasterio.open(pair.before) as before:
        assert result.crs == before.crs
        assert result.transform == before.transform
        assert result.shape == before.shape
        assert result.nodata == 255
        assert result.scales[0] == pytest.approx(1 / 254)
        assert np.array_equal(result.read(1), stored)
    dataset = xr.open_zarr(run / "run.zarr", decode_coords="all")
    assert dataset.rio.crs.to_epsg() == before.crs.to_epsg()
    changes = geopandas.read_parquet(run / "changes.parquet")
    assert {"area_m2", "mean_probability", "max_probability"} <= set(changes.columns)
    item = pystac.Item.from_file(str(run / "item.json"))
    for asset in item.assets.values():
        content = (run / asset.href).read_bytes()
        assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert (run / "report.html").stat().st_size > 10_000
    assert (run / "quicklook.png").stat().st_size > 1_000


def test_nodata_is_where_an_input_was_and_nowhere_else(run: Path, pair: SyntheticPair) -> None:
    with rasterio.open(pair.before) as before, rasterio.open(pair.after) as after:
        both = (before.dataset_mask() > 0) & (after.dataset_mask() > 0)
    assert not both.all(), "the scene is meant to have nodata"
    assert np.array_equal(probability(run)[0] == 255, ~both)


def test_changes_are_found(run: Path, pair: SyntheticPair) -> None:
    with rasterio.open(pair.change) as truth:
        changed = truth.read(1)
    found = probability(run)[0].astype(float) / 254
    valid = (changed != 255) & (found <= 1)
    assert found[valid & (changed == 1)].mean() > 2 * found[valid & (changed == 0)].mean()


def test_a_second_run_computes_nothing(run: Path, pair: SyntheticPair) -> None:
    lines, before = infer_lines(run), (run / "change_probability.tif").stat().st_mtime_ns
    run_detection(request_for(pair, run))
    assert infer_lines(run) == lines
    assert (run / "change_probability.tif").stat().st_mtime_ns == before


def test_one_worker_and_another_cut_give_the_same_bytes(run: Path, pair: SyntheticPair, tmp_path: Path) -> None:
    one = request_for(pair, tmp_path / "one", block=256, cluster=ClusterConfig(workers=1))
    run_detection(one)
    assert np.array_equal(probability(tmp_path / "one"), probability(run))
    lattice = WindowLattice(height=700, width=900, window=256, overlap=64)
    by_blocks = sum(len(lattice.origins_touching(b.box)) for b in BlockGrid(height=700, width=900, size=256))
    entries = list(Ledger(tmp_path / "one" / "ledger", "infer").entries("done"))
    windows, skipped = (sum(entry.facts[fact] for entry in entries) for fact in ("windows", "skipped"))
    # a chain of twelve blocks, cut where a lane would be idle
    assert len(entries) == 12
    assert len(lattice) <= windows + skipped <= 0.75 * by_blocks


def test_another_request_leaves_the_run_alone_and_says_what_changed(run: Path, pair: SyntheticPair) -> None:
    before = probability(run)
    with pytest.raises(DifferentRunError, match=r"parameters\.overlap: 32 → 64"):
        run_detection(request_for(pair, run, overlap=64))
    assert np.array_equal(probability(run), before)


@pytest.mark.timeout(1800)
def test_killed_worker_and_killed_driver_resume_to_the_same_bytes(
    run: Path, pair: SyntheticPair, tmp_path: Path, dasnet_process: Dasnet
) -> None:
    output = tmp_path / "killed"
    arguments = ["detect", pair.before, pair.after, "--output", output, "--block", 192, "--workers", 2]
    command = [sys.executable, "-m", "flows", *map(str, arguments)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_blocks(output, 1, driver)
        workers = [
            p for p in psutil.Process(driver.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())
        ]
        os.kill(workers[0].pid, signal.SIGKILL)
        _wait_for_blocks(output, 4, driver)
    finally:
        driver.kill()
        driver.wait()
    kept = Ledger(output / "ledger", "infer").count("done")
    total = 4 * 5
    assert 4 <= kept < total
    state = dasnet_process("status", output)
    assert state.code == 0
    assert f"{kept} of {total} blocks done" in state.out
    resumed = dasnet_process(*arguments, timeout=600)
    assert resumed.code == 0, resumed.err
    assert infer_lines(output) == total, "no finished block is computed again"
    assert np.array_equal(probability(output), probability(run))
    assert "Traceback" not in resumed.err


def _wait_for_blocks(output: Path, count: int, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while Ledger(output / "ledger", "infer").count("done") < count:
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_changed_bytes_in_the_store_are_noticed_and_computed_again(
    run: Path, pair: SyntheticPair, tmp_path: Path
) -> None:
    output = tmp_path / "rotten"
    shutil.copytree(run, output)
    (output / "ledger" / "products.json").unlink()
    from storage.stores.run_store import RunStore

    store = RunStore(output / "run.zarr")
    block = store.read_probability(rows=slice(0, 512), cols=slice(0, 512))
    store.write_probability(255 - block[None], rows=slice(0, 512), cols=slice(0, 512))
    with pytest.raises(IntegrityError, match="r00000c00000"):
        run_detection(request_for(pair, output))
    run_detection(request_for(pair, output))
    assert np.array_equal(probability(output), probability(run))


def test_lost_imagery_is_read_anew_with_retry_failed(run: Path, pair: SyntheticPair, tmp_path: Path) -> None:
    output = tmp_path / "lost"
    shutil.copytree(run, output)
    again = request_for(pair, output)
    store = output / "run.zarr"
    shard = store / "image" / "c" / "1" / "0" / "0" / "0"
    whole = shard.read_bytes()

    # before its block is computed
    shard.unlink()
    ledger = Ledger(output / "ledger", "infer")
    ledger.forget(["r00000c00000"], reason="this test")
    with pytest.raises(FailedBlocksError, match=r"r00000c00000: IntegrityError.* is missing(.|\n)*--retry-failed"):
        run_detection(again.model_copy(update={"retries": 0}))
    with pytest.raises(FailedBlocksError):
        run_detection(again)
    run_detection(again.model_copy(update={"retry_failed": True}))
    assert shard.read_bytes() == whole
    assert np.array_equal(probability(output), probability(run))

    # after all of it was computed, when a picture is to be made
    shard.unlink()
    (output / "ledger" / "products.json").unlink()
    with pytest.raises(IntegrityError, match=r"1 blocks of imagery are set back \(t1/r00000c00000\); run the same"):
        run_detection(again)
    run_detection(again)
    assert shard.read_bytes() == whole


def test_unreadable_pixels_fail_their_blocks_and_only_those(
    run: Path, pair: SyntheticPair, tmp_path: Path, dasnet_process: Dasnet
) -> None:
    broken = tmp_path / "before.tif"
    broken.write_bytes(pair.before.read_bytes())
    with rasterio.open(broken) as mosaic:
        offset = int(mosaic.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
        size = int(mosaic.get_tag_item("BLOCK_SIZE_0_0", "TIFF", bidx=1))
    with broken.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    output = tmp_path / "run"
    arguments = ["detect", broken, pair.after, "--output", output, "--block", 256, "--workers", 2]
    ended = dasnet_process(*arguments)
    assert ended.code == 1
    assert "t0/r00000c00000: ShortReadError" in ended.err
    assert "before.tif" in ended.err
    assert "Traceback" not in ended.err
    ledger = Ledger(output / "ledger", "infer")
    assert ledger.count("failed") >= 1
    assert ledger.count("done") + ledger.count("failed") == 3 * 4
    assert ledger.state("r00002c00003") == "done"
    assert not (output / "change_probability.tif").exists()
    assert dasnet_process("status", output).code == 1


def test_run_json_names_inputs_bundle_and_versions(run: Path, pair: SyntheticPair) -> None:
    facts = json.loads((run / "run.json").read_text())
    digest = hashlib.sha256(pair.before.read_bytes()).hexdigest()
    assert digest in json.dumps(facts["files"])
    assert len(facts["identity"]["bundle"]["sha256"]) == 64
    assert facts["versions"]["torch"]
    assert facts["execution"]["device"].startswith("CPU")

"""Methods without training through the main job: the same bytes however it is cut, resumed, refused, described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from distributed import LocalCluster
from numpy.typing import NDArray

from dasnet.baselines.detector import levels
from dasnet.baselines.methods import UNTRAINED, Sheet, fit
from dasnet.baselines.scoring import score_untrained
from dasnet.baselines.statistics import Names
from flows.cli.status import directory_status
from flows.cluster.config import ClusterConfig
from flows.detect import statistics
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from storage.datasets.create import create_dataset
from storage.datasets.store import DatasetStore, Samples
from storage.errors import InputError
from storage.synthetic.pair import SyntheticPair
from tests.flows.cli.test_main import raster, refused
from tests.flows.conftest import Dasnet, request_for

PLACES = [(y, x) for y in (0, 512) for x in (0, 512)]


@pytest.fixture(scope="module")
def two_workers() -> Iterator[str]:
    with LocalCluster(n_workers=2, threads_per_worker=2, host="127.0.0.1", dashboard_address=None) as started:
        yield started.scheduler_address


@pytest.fixture(scope="module")
def one_worker() -> Iterator[str]:
    with LocalCluster(n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None) as started:
        yield started.scheduler_address


def asked(pair: SyntheticPair, output: Path, scheduler: str, **changes: Any) -> DetectRequest:
    return request_for(pair, output, **{"cluster": ClusterConfig(kind=scheduler), **changes})


def stored(run: Path) -> NDArray[np.uint8]:
    return xr.open_zarr(run / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()[0]


def expected(pair: SyntheticPair, name: str) -> NDArray[np.uint8]:
    """What the method makes of the whole pair in memory, its sheets of 512 px one after another."""
    with rasterio.open(pair.before) as first, rasterio.open(pair.after) as second:
        before, after = first.read(), second.read()
        valid = (first.dataset_mask() > 0) & (second.dataset_mask() > 0)

    def sheets() -> Iterator[Sheet]:
        for y, x in PLACES:
            here = (slice(y, y + 512), slice(x, x + 512))
            yield before[:, *here], after[:, *here], valid[here]

    names = Names(before="b", after="a", bands_before=("1", "2", "3"), bands_after=("1", "2", "3"))
    detector = UNTRAINED[name].detector(fit(UNTRAINED[name], sheets, names))
    return np.where(valid, levels(detector.statistic(before, after, valid), detector.threshold), np.uint8(255))


@pytest.fixture(scope="module")
def irmad(pair: SyntheticPair, two_workers: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("methods") / "irmad"
    run_detection(asked(pair, output, two_workers, bundle="irmad"))
    return output


def test_the_mosaic_is_what_the_whole_pair_in_memory_gives(irmad: Path, pair: SyntheticPair) -> None:
    assert np.array_equal(stored(irmad), expected(pair, "irmad"))


def test_one_worker_and_another_cut_give_the_same_bytes(
    irmad: Path, pair: SyntheticPair, one_worker: str, tmp_path: Path
) -> None:
    run_detection(asked(pair, tmp_path / "one", one_worker, bundle="irmad", block=192))
    assert np.array_equal(stored(tmp_path / "one"), stored(irmad))


def test_patches_reach_over_the_edges_of_blocks(pair: SyntheticPair, two_workers: str, tmp_path: Path) -> None:
    run_detection(asked(pair, tmp_path / "run", two_workers, bundle="pca-kmeans", block=192))
    assert np.array_equal(stored(tmp_path / "run"), expected(pair, "pca-kmeans"))


def test_a_run_that_ends_between_passes_goes_on_with_the_next_to_the_same_bytes(
    irmad: Path, pair: SyntheticPair, two_workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, record = tmp_path / "run", statistics.write_progress
    written: list[int] = []

    def stops_at_the_third(*arguments: Any) -> None:
        written.append(1)
        if len(written) == 3:
            raise OSError("scripted: the machine goes down")
        record(*arguments)

    monkeypatch.setattr(statistics, "write_progress", stops_at_the_third)
    with pytest.raises(OSError, match="scripted"):
        run_detection(asked(pair, output, two_workers, bundle="irmad"))
    monkeypatch.undo()
    lines = dict(directory_status(output).lines())
    assert lines["statistics"] == "2 passes done"
    assert lines["statistics-3"].startswith("4 of 4 blocks done")
    assert lines["state"] == "unfinished"
    counted = (output / "ledger" / "statistics-3.jsonl").read_bytes()
    assert counted.count(b"\n") == 4, "what pass 3 counted is kept"
    run_detection(asked(pair, output, two_workers, bundle="irmad"))
    assert np.array_equal(stored(output), stored(irmad))
    assert (output / "statistics.json").read_bytes() == (irmad / "statistics.json").read_bytes()
    assert dict(directory_status(output).lines())["state"] == "finished"


def test_products_say_what_made_them(irmad: Path) -> None:
    item = json.loads((irmad / "item.json").read_text())["properties"]
    assert "irmad: Nielsen (2007)" in item["processing:lineage"]
    assert item["dasnet:parameters"]["method"]["name"] == "irmad"
    assert item["dasnet:parameters"]["method"]["version"] == 1
    assert item["dasnet:statistics"]["pass 1"].startswith("canonical correlations")
    assert item["dasnet:execution"]["precision"] == "float64"
    report = (irmad / "report.html").read_text()
    for words in ("method irmad", "threshold of the statistic", "canonical correlations", "calibration: p / (1 − p)"):
        assert words in report
    assert not list((irmad / "ledger").glob("statistics-*")), "ledgers of passes end with them"


def test_another_threshold_is_another_run(irmad: Path, pair: SyntheticPair, two_workers: str) -> None:
    with pytest.raises(InputError, match=r"parameters\.method\.threshold: otsu → chi2"):
        run_detection(asked(pair, irmad, two_workers, bundle="irmad", threshold="chi2"))


def test_statistics_that_say_nothing_end_with_exit_code_2(two_workers: str, dasnet: Dasnet, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    first = random.integers(1, 200, (3, 200, 300)).astype(np.uint8)
    second = first + random.integers(0, 9, first.shape).astype(np.uint8)
    second[2] = 77
    before, after = raster(tmp_path / "old.tif", pixels=first), raster(tmp_path / "new.tif", pixels=second)
    ended = dasnet("detect", before, after, "--output", tmp_path / "o", "--bundle", "isfa", "--cluster", two_workers)
    assert ended.code == 2, ended.err
    flat = " ".join(ended.err.split())
    assert f"band blue of {after} has one value, 77" in flat and "--bands" in flat
    assert "Traceback" not in ended.err


def test_what_cannot_work_is_refused_before_anything_is_written(
    pair: SyntheticPair, dasnet: Dasnet, tmp_path: Path
) -> None:
    output = tmp_path / "o"
    arguments = ("detect", pair.before, pair.after, "--output", output)
    refused(dasnet(*arguments, "--bundle", "cva", "--window", 128), output, "--window 128", "cva", "no network")
    refused(dasnet(*arguments, "--threshold", "otsu"), output, "--threshold otsu", "synthetic has its own")
    refused(dasnet(*arguments, "--bundle", "cva", "--threshold", "chi2"), output, "cva knows no threshold 'chi2'")
    refused(dasnet(*arguments, "--bundle", "sfa", "--bands", "1,1"), output, "--bands 1,1", "each of them once")
    archive = ("reprocess", f"{pair.before},{pair.after}", "--output", output, "--bundle", "sfa")
    refused(dasnet(*archive), output, "sfa is a method without training", "reprocess needs a bundle")


def test_any_bands_and_types_are_taken_and_what_does_not_fit_is_named(tmp_path: Path, dasnet: Dasnet) -> None:
    wide = np.full((5, 200, 300), 900, dtype=np.uint16)
    five, three = raster(tmp_path / "five.tif", pixels=wide), raster(tmp_path / "three.tif", pixels=wide[:3])
    bytes_ = raster(tmp_path / "bytes.tif")
    output = tmp_path / "o"
    plan = dasnet("detect", five, five, "--output", output, "--bundle", "sfa", "--dry-run")
    assert plan.code == 0, plan.err
    assert "sfa, bands band1, band2, band3, band4, band5" in " ".join(plan.out.split())
    refused(
        dasnet("detect", five, three, "--output", output, "--bundle", "sfa"),
        output,
        "five.tif has 5",
        "three.tif has 3",
    )
    chosen = dasnet("detect", five, three, "--output", output, "--bundle", "sfa", "--bands", "3,1", "--dry-run")
    assert "bands band3, band1" in " ".join(chosen.out.split()), chosen.err
    refused(
        dasnet("detect", three, bytes_, "--output", output, "--bundle", "sfa"),
        output,
        "three.tif holds uint16",
        "bytes.tif holds uint8",
    )
    card = dasnet("bundle", "pca-kmeans")
    assert card.code == 0 and "Celik (2009)" in card.out


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_split_is_scored_as_one_image_at_the_methods_own_threshold(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    before = random.normal(100, 20, (6, 2, 32, 32)).astype(np.float32)
    after = (before * 1.3 + 10 + random.normal(0, 2, before.shape)).astype(np.float32)
    label = np.zeros((6, 32, 32), dtype=np.uint8)
    label[4, 8:28, 8:28] = 1
    after[4, :, 8:28, 8:28] += 90
    label[:, :, 31] = 255
    valid = np.ones((6, 2, 32, 32), dtype=bool)
    valid[2, 1, :5] = False
    path = tmp_path / "dataset.zarr"
    create_dataset(
        path,
        sources=["s"] * 6,
        rows=[0] * 6,
        cols=range(6),
        window=32,
        bands=("a", "b"),
        dtype="float32",
        shard=6,
        attrs={},
    )
    store = DatasetStore(path)
    store.write(0, Samples(before=before, after=after, valid=valid, label=label))
    splits = np.array([0, 0, 2, 2, 2, 0], dtype=np.int8)
    store.finish(splits, changed=[0] * 6, unchanged=[0] * 6, attrs={"digest": "d"})
    found = score_untrained(name, store, "test")
    assert found.indices.tolist() == [2, 3, 4]
    assert sum(found.per_sample, type(found.confusion)()) == found.confusion
    # every labelled pixel that both dates have, once
    assert found.confusion.total == 3 * 32 * 31 - 5 * 31 == found.sweep.changed.sum() + found.sweep.unchanged.sum()
    assert found.confusion.tp + found.confusion.fn == 400
    # one fit alone takes the change for a part of what is normal
    assert found.confusion.f1 > (0.6 if name == "sfa" else 0.8)
    assert found.sweep.best()[1].f1 >= found.confusion.f1 - 1e-9
    # side by side in one array, the three samples have the same statistics
    images = [np.concatenate(list(date[2:5]), axis=-1) for date in (before, after)]
    there = np.concatenate(list(valid[2:5].all(axis=1)), axis=-1)
    names = Names(before="b", after="a", bands_before=("a", "b"), bands_after=("a", "b"))
    detector = UNTRAINED[name].detector(fit(UNTRAINED[name], lambda: [(images[0], images[1], there)], names))
    assert float(found.threshold.split(",")[0]) == pytest.approx(detector.threshold, rel=1e-2)
    with pytest.raises(InputError, match="no sample in split 'val'"):
        score_untrained(name, store, "val")

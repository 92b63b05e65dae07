"""A first pass: computed where it says so, to the same bytes as without it, however the run is cut or interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray

from dasnet.baselines.coarse import block_means, cell_statistics
from dasnet.baselines.methods import UNTRAINED, fit
from dasnet.baselines.statistics import Names
from flows.cli.status import directory_status
from flows.cluster.config import ClusterConfig
from flows.detect import first_pass
from flows.detect.first_pass import level_of
from flows.detect.first_pass_rule import FirstPassRule
from flows.detect.job import resolve
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from flows.inference.predictor import predictor_factory
from flows.run.directory import DifferentRunError
from flows.run.errors import FailedBlocksError
from storage.errors import InputError
from storage.synthetic.pair import SyntheticPair, synthesize
from tests.dasnet.baselines.test_embeddings import quantised, unit_vectors
from tests.flows.cli.test_main import refused
from tests.flows.conftest import Dasnet
from tests.rasters import geotiff
from tiling.chosen import ChosenCells
from tiling.conventions import changed_level
from tiling.grid import WindowLattice
from tiling.protocols import Predictor

HEIGHT, WIDTH = 400, 530
CELLS = (4, 5)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SyntheticPair:
    return synthesize(tmp_path_factory.mktemp("small"), height=HEIGHT, width=WIDTH, seed=8)


def asked(pair: SyntheticPair, output: Path, workers: ClusterConfig, **changes: Any) -> DetectRequest:
    values = {"before": str(pair.before), "after": str(pair.after), "output": output, "cluster": workers}
    return DetectRequest.model_validate({**values, "window": 96, "block": 128, "retries": 0, **changes})


def levels(run: Path) -> NDArray[np.uint8]:
    return xr.open_zarr(run / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()[0]


@pytest.fixture(scope="module")
def full(small: SyntheticPair, workers: ClusterConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "full"
    run_detection(asked(small, output, workers))
    return output


@pytest.fixture(scope="module")
def third(small: SyntheticPair, workers: ClusterConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "third"
    run_detection(asked(small, output, workers, first_pass="cva:33%"))
    return output


def chosen_in(run: Path) -> NDArray[np.bool_]:
    return ChosenCells.from_dict(json.loads((run / "first_pass.json").read_text())["chosen"]).cells


def as_pixels(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that lie in no window but those that touch a chosen cell."""
    chosen = np.kron(cells, np.ones((128, 128), dtype=bool))[:HEIGHT, :WIDTH].astype(bool)
    lattice = WindowLattice(height=HEIGHT, width=WIDTH, window=96, overlap=24)
    whole = np.ones_like(chosen)
    for y in lattice.starts_y:
        for x in lattice.starts_x:
            window = (slice(y, y + 96), slice(x, x + 96))
            if not chosen[window].any():
                whole[window] = False
    assert (whole >= chosen).all()
    return whole


def test_what_is_computed_is_what_the_whole_run_has(full: Path, third: Path) -> None:
    whole, part, chosen = levels(full), levels(third), as_pixels(chosen_in(third))
    valid = whole != 255
    assert 0.33 < chosen[valid].mean() < 0.8
    assert np.array_equal(part == 255, ~valid)
    assert np.array_equal(part[valid & chosen], np.maximum(whole[valid & chosen], 1))
    assert (part[valid & ~chosen] == 0).all()
    with rasterio.open(third / "change_probability.tif") as file:
        assert np.array_equal(file.read(1), part)
        assert file.tags()["PASSED_OVER"] == "0"
    assert xr.open_zarr(third / "run.zarr").attrs["passed_over_level"] == 0


def test_cells_are_those_that_differ_most_by_the_method(third: Path, small: SyntheticPair) -> None:
    with rasterio.open(small.before) as first, rasterio.open(small.after) as second:
        before, after = first.read(), second.read()
        valid = (first.dataset_mask() > 0) & (second.dataset_mask() > 0)
    coarse = block_means(before, after, valid)
    names = Names(before="b", after="a", bands_before=("1", "2", "3"), bands_after=("1", "2", "3"))
    detector = UNTRAINED["cva"].detector(fit(UNTRAINED["cva"], lambda: [coarse], names))
    statistics = cell_statistics(detector.statistic(*coarse), coarse[2], side=32)
    assert statistics.shape == CELLS
    count = int(np.ceil(0.33 * np.isfinite(statistics).sum()))
    expected = statistics >= np.sort(statistics[np.isfinite(statistics)])[-count]
    assert np.array_equal(chosen_in(third), expected)


@pytest.mark.parametrize("block", [64, 576])
def test_the_choice_does_not_depend_on_blocks(
    block: int, small: SyntheticPair, third: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    run_detection(asked(small, output, workers, first_pass="cva:33%", block=block))
    assert np.array_equal(levels(output), levels(third))
    assert (output / "first_pass.json").read_bytes() == (third / "first_pass.json").read_bytes()
    assert (output / "change_probability.tif").read_bytes() == (third / "change_probability.tif").read_bytes()


def fails_at(calls: int, marker: Path, make: Callable[[], Predictor]) -> Predictor:
    """On a worker: a predictor that computes some blocks, then none; once a marker is there it computes all."""
    return Failing(make(), calls=calls, marker=marker)


class Failing:
    def __init__(self, predictor: Predictor, *, calls: int, marker: Path) -> None:
        self._predictor, self._calls, self._marker = predictor, calls, marker

    def describe(self) -> Mapping[str, Any]:
        return self._predictor.describe()

    def predict(self, *arguments: Any, **options: Any) -> Any:
        self._calls -= 1
        if self._calls < 0 and not self._marker.exists():
            raise OSError("scripted: the device is gone")
        return self._predictor.predict(*arguments, **options)


def test_a_run_goes_on_to_the_same_bytes_wherever_it_was_interrupted(
    small: SyntheticPair, third: Path, workers: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, marker = tmp_path / "run", tmp_path / "marker"
    request = asked(small, output, workers, first_pass="cva:33%")

    def full_disk(*_: Any) -> None:
        raise OSError("scripted: no space left")

    monkeypatch.setattr(first_pass, "write_json_atomically", full_disk)
    with pytest.raises(OSError, match="scripted"):
        run_detection(request)
    monkeypatch.undo()
    assert not (output / "first_pass.json").exists()
    assert dict(directory_status(output).lines())["first-pass"].startswith("1 of 1 blocks done")
    with pytest.raises(FailedBlocksError):
        run_detection(request, partial(fails_at, 3, marker, predictor_factory(resolve(request))))
    choice = (output / "first_pass.json").read_bytes()
    assert choice == (third / "first_pass.json").read_bytes()
    marker.touch()
    run_detection(request.model_copy(update={"retry_failed": True}))
    assert np.array_equal(levels(output), levels(third))
    assert (output / "change_probability.tif").read_bytes() == (third / "change_probability.tif").read_bytes()
    assert (output / "first_pass.json").read_bytes() == choice


def test_products_say_what_was_passed_over(third: Path) -> None:
    over = int(np.count_nonzero(levels(third) == 0))
    valid = int(np.count_nonzero(levels(third) != 255))
    facts = json.loads((third / "item.json").read_text())["properties"]["dasnet:first_pass"]
    assert facts["passed_over_pixels"] == over
    assert facts["passed_over_share"] == pytest.approx(over / valid, abs=1e-6)
    assert facts["passed_over_level"] == 0
    assert facts["cells_chosen"] == chosen_in(third).sum()
    record = json.loads((third / "run.json").read_text())
    assert record["first_pass"]["level"] == facts["level"]
    assert record["identity"]["parameters"]["first_pass"]["share"] == 0.33
    report = (third / "report.html").read_text()
    assert f"{over / valid:.2%}" in report
    assert "33 % of the cells that differ most by cva" in report


def test_fewer_windows_are_computed(full: Path, third: Path) -> None:
    def windows(run: Path) -> int:
        lines = (run / "ledger" / "infer.jsonl").read_text().splitlines()
        return sum(json.loads(line)["facts"]["windows"] for line in lines)

    assert 0 < windows(third) < 0.75 * windows(full)


def layers(folder: Path) -> tuple[Path, Path]:
    """Embeddings of both dates, a pixel for ten of the pair's first 480 columns, that differ in its upper left part."""
    random = np.random.default_rng(6)
    before = unit_vectors(random, 16, 40, 48)
    after = before + 0.02 * random.normal(size=before.shape)
    after[:, :20, :24] = unit_vectors(random, 16, 20, 24)
    paths = []
    for name, values in (("before", before), ("after", after / np.linalg.norm(after, axis=0))):
        paths.append(geotiff(folder / f"{name}.tif", quantised(values), nodata=-128))
    return paths[0], paths[1]


def test_embeddings_beside_the_pair_choose_cells(
    small: SyntheticPair, full: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    with rasterio.open(small.before) as file:
        corner, system = file.transform, file.crs
    paths = layers(tmp_path)
    for path in paths:
        with rasterio.open(path, "r+") as file:
            file.transform, file.crs = corner * Affine.scale(10), system
    output = tmp_path / "run"
    request = asked(
        small,
        output,
        workers,
        first_pass="embedding-cosine:0.3",
        first_pass_before=str(paths[0]),
        first_pass_after=str(paths[1]),
    )
    run_detection(request)
    chosen = chosen_in(output)
    # the last column of cells lies where there is no embedding: nothing is known of it
    expected = np.zeros(CELLS, dtype=bool)
    expected[:2, :2] = expected[:, 4] = True
    assert np.array_equal(chosen, expected)
    whole, part = levels(full), levels(output)
    computed = as_pixels(chosen) & (whole != 255)
    assert np.array_equal(part[computed], np.maximum(whole[computed], 1))
    record = json.loads((output / "run.json").read_text())
    assert len(record["identity"]["inputs"]) == 2
    assert len(record["identity"]["first_pass_inputs"]) == 2
    assert str(paths[0]) in "".join(record["files"])
    with rasterio.open(paths[1], "r+") as file:
        file.write(np.full((16, 4, 4), 32, dtype=np.int8), window=((30, 34), (30, 34)))
    with pytest.raises(DifferentRunError, match=r"after\.tif"):
        run_detection(request)


def test_what_embeddings_cannot_judge_is_computed(tmp_path: Path, small: SyntheticPair, workers: ClusterConfig) -> None:
    with rasterio.open(small.before) as file:
        corner, system = file.transform, file.crs
    paths = layers(tmp_path)
    for path in paths:
        with rasterio.open(path, "r+") as file:
            file.transform, file.crs = corner * Affine.scale(8), system
    options = {"first_pass_before": str(paths[0]), "first_pass_after": str(paths[1])}
    job = resolve(asked(small, tmp_path / "run", workers, first_pass="embedding-l2:30%", **options))
    plan = job.first_pass
    assert plan is not None
    statistics = np.full(CELLS, 0.1)
    statistics[3, :2], statistics[0, 0] = np.nan, 2.0
    choice = first_pass.choice_of(plan, statistics)
    assert choice.cells.cells[3, :2].all()
    assert choice.cells.cells.all(), "cells that differ alike are computed together"
    assert (choice.judged, choice.unjudged) == (18, 2)


def test_a_share_and_a_level() -> None:
    statistics = np.array([5.0, 1.0, 3.0, 2.0, 4.0])
    assert level_of(FirstPassRule.of("cva:40%"), statistics) == 4
    assert level_of(FirstPassRule.of("cva:41%"), statistics) == 3
    assert level_of(FirstPassRule.of("cva:100%"), statistics) == 1
    assert level_of(FirstPassRule.of("cva:0.001%"), statistics) == 5
    assert level_of(FirstPassRule.of("irmad:2.5"), statistics) == 2.5
    assert FirstPassRule.of("sfa").share == 0.5
    assert level_of(FirstPassRule.of("cva"), np.zeros(0)) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--first-pass", "magic"], "'magic' is none of cva, irmad"),
        (["--first-pass", "cva:lots"], "'lots' is no share and no level"),
        (["--first-pass", "cva:0%"], "more than 0 %"),
        (["--first-pass", "cva:130%"], "at most 100 %"),
        (
            ["--first-pass", "embedding-cosine:30"],
            "embedding-cosine is 2 at most, so that no cell would be computed; a share",
        ),
        (["--first-pass", "embedding-cosine"], "give them with --first-pass-before"),
        (["--first-pass", "cva", "--first-pass-before", "x.tif"], "cva looks at the pair itself"),
        (["--first-pass-after", "x.tif"], "no --first-pass is asked for"),
        (["--first-pass", "cva", "--bundle", "irmad"], "spares a network, and irmad is none"),
    ],
)
def test_what_makes_no_first_pass_is_refused(
    options: list[str], words: str, small: SyntheticPair, dasnet: Dasnet, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    refused(dasnet("detect", small.before, small.after, "--output", output, *options), output, words)


def test_embeddings_elsewhere_are_refused(small: SyntheticPair, workers: ClusterConfig, tmp_path: Path) -> None:
    paths = layers(tmp_path)
    for path in paths:
        with rasterio.open(path, "r+") as file:
            file.transform = file.transform * Affine.translation(5e4, 0)
    options = {"first_pass_before": str(paths[0]), "first_pass_after": str(paths[1])}
    with pytest.raises(InputError, match=r"before\.tif does not overlap the grid of the run"):
        resolve(asked(small, tmp_path / "run", workers, first_pass="embedding-cosine", **options))


def test_thresholds_lie_above_what_was_passed_over(third: Path) -> None:
    threshold = json.loads((third / "item.json").read_text())["properties"]["dasnet:threshold"]
    assert changed_level(threshold) > 1

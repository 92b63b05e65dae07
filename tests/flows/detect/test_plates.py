"""Products are joined from plates that workers make: resumed, verified, made anew where a part is damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio

import flows.detect.products
from flows.cluster.config import ClusterConfig
from flows.detect.run import run_detection
from flows.inference.plate_stage import PairPlates
from flows.inference.plate_tool import LOOK, OUTLINES, TILES
from flows.run.directory import RunDirectory
from flows.run.observer import observed_by
from storage.errors import IntegrityError
from storage.places.publish import sha256_of
from storage.synthetic.pair import SyntheticPair
from tests.flows.conftest import request_for
from tests.flows.observers import Recorder
from tiling.ledger import Ledger

PRODUCTS = ("change_probability.tif", "changes.parquet", "quicklook.png")


@pytest.fixture
def small_plates(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plates of one tile: four of them in the pair of 700 × 900 px."""
    monkeypatch.setattr(flows.detect.products, "PairPlates", partial(PairPlates, size=512))
    yield


@pytest.fixture
def unfinished(run: Path, tmp_path: Path) -> Path:
    """The clean run as it was before its products."""
    output = tmp_path / "run"
    shutil.copytree(run, output)
    for name in (*PRODUCTS, "report.html", "item.json", "ledger/products.json"):
        (output / name).unlink()
    return output


class Interrupted(Recorder):
    """Does something when so many plates are made."""

    def __init__(self, after: int, act: Callable[[], None]) -> None:
        super().__init__()
        self._after, self._act, self._stage = after, act, ""

    def begin(self, stage: str, total: int, *, done: int = 0, unit: str = "blocks", live: str = "") -> None:
        super().begin(stage, total, done=done, unit=unit, live=live)
        self._stage = stage

    def advance(self, count: int = 1) -> None:
        super().advance(count)
        if self._stage == "plates" and self.advanced("plates") == self._after:
            self._act()


def again(pair: SyntheticPair, output: Path, workers: ClusterConfig, observer: Recorder | None = None) -> Recorder:
    observer = observer or Recorder()
    with observed_by(observer):
        run_detection(request_for(pair, output, cluster=workers))
    return observer


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def test_what_plates_leave_is_gone_when_the_products_stand(run: Path) -> None:
    assert not (run / ".plates").exists()
    assert not (run / "ledger" / "plates.jsonl").exists()


def test_the_cut_into_plates_changes_no_pixel_and_no_polygon(
    run: Path, unfinished: Path, pair: SyntheticPair, workers: ClusterConfig, small_plates: None
) -> None:
    observer = again(pair, unfinished, workers)
    assert ("begin", "plates", 4, 0) in observer.events and observer.advanced("plates") == 4
    assert np.array_equal(pixels(unfinished / PRODUCTS[0]), pixels(run / PRODUCTS[0]))
    assert (unfinished / "quicklook.png").read_bytes() == (run / "quicklook.png").read_bytes()
    import geopandas

    one, other = (geopandas.read_parquet(path / "changes.parquet") for path in (unfinished, run))
    assert len(one) == len(other) > 3
    key = ["pixels", "area_m2"]
    one, other = (frame.sort_values(key).reset_index(drop=True) for frame in (one, other))
    assert one.geometry.geom_equals(other.geometry).all() and one[key].equals(other[key])


def test_an_interrupted_run_makes_no_plate_twice(
    run: Path, unfinished: Path, pair: SyntheticPair, workers: ClusterConfig, small_plates: None
) -> None:
    class StoppedError(Exception):
        pass

    def stop() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        again(pair, unfinished, workers, Interrupted(2, stop))
    done = Ledger(unfinished / "ledger", "plates").count("done")
    assert 2 <= done < 4
    observer = again(pair, unfinished, workers)
    assert ("begin", "plates", 4, done) in observer.events
    assert observer.advanced("plates") == 4 - done
    assert np.array_equal(pixels(unfinished / PRODUCTS[0]), pixels(run / PRODUCTS[0]))
    assert not (unfinished / ".plates").exists()


@pytest.mark.parametrize("kind", [TILES, OUTLINES, LOOK])
def test_a_part_that_is_damaged_is_named_and_made_anew_by_the_next_run(
    kind: str, run: Path, unfinished: Path, pair: SyntheticPair, workers: ClusterConfig
) -> None:
    part = unfinished / ".plates" / f"r00000c00000.{kind}"

    def tear() -> None:
        part.write_bytes(part.read_bytes()[:100])

    with pytest.raises(IntegrityError, match=part.name):
        again(pair, unfinished, workers, Interrupted(1, tear))
    assert not list(unfinished.glob(".*-*.tif"))
    again(pair, unfinished, workers)
    assert [sha256_of(unfinished / name) for name in PRODUCTS] == [sha256_of(run / name) for name in PRODUCTS]


def test_parts_of_other_pixels_or_another_threshold_are_not_joined(
    run: Path, unfinished: Path, pair: SyntheticPair, workers: ClusterConfig
) -> None:
    """What an earlier, interrupted run left is looked at by what it was made of."""

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(pair, unfinished, workers, Interrupted(1, stop))
    ledger = RunDirectory(unfinished).ledger("plates")
    (entry,) = ledger.entries("done")
    assert entry.facts["key"]
    observer = Recorder()
    with observed_by(observer):
        run_detection(request_for(pair, unfinished, cluster=workers, min_area=300))
    assert ("begin", "plates", 1, 0) in observer.events and observer.advanced("plates") == 1


def test_a_block_that_storage_has_changed_is_set_back_before_anything_is_joined(
    run: Path, unfinished: Path, pair: SyntheticPair, workers: ClusterConfig, small_plates: None
) -> None:
    first, second = (unfinished / "run.zarr" / "change_probability" / "c" / "0" / place for place in ("0/0", "1/1"))
    first.write_bytes((run / "run.zarr/change_probability/c/0/0/1").read_bytes())
    second.unlink()
    with pytest.raises(
        IntegrityError, match=r"2 blocks are not what their workers wrote \(r00000c00000, r00001c00001\)"
    ):
        again(pair, unfinished, workers)
    assert not (unfinished / PRODUCTS[0]).exists()
    again(pair, unfinished, workers)
    assert np.array_equal(pixels(unfinished / PRODUCTS[0]), pixels(run / PRODUCTS[0]))

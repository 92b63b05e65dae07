"""prepare-dataset and compute-class-weights from end to end, on folders and mosaics as people have them."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from PIL import Image

from dasnet.errors import TrainingError
from flows.cluster.config import ClusterConfig
from flows.dataset.class_weights import count_class_weights
from flows.dataset.report import DatasetSummary
from flows.dataset.request import PrepareRequest, WeightsRequest
from flows.dataset.run import find, run_preparation
from flows.run.directory import sha256_of_facts
from flows.run.errors import FailedBlocksError
from storage.datasets.store import DatasetStore, open_dataset
from storage.errors import InputError, IntegrityError
from storage.places.locks import folder_lock
from storage.synthetic.pair import SyntheticPair, synthesize
from tests.flows.conftest import Dasnet
from tiling.conventions import SPLITS

RANDOM = np.random.default_rng(3)


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticPair:
    return synthesize(tmp_path_factory.mktemp("labelled"), height=700, width=1000, seed=9)


def request(output: Path, cluster: ClusterConfig, **changes: Any) -> PrepareRequest:
    return PrepareRequest.model_validate({"output": output, "cluster": cluster, **changes})


def of_mosaic(pair: SyntheticPair, output: Path, cluster: ClusterConfig, **changes: Any) -> PrepareRequest:
    small = {"window": 64, "cell": 2, "shard": 16, "max_nodata": 0.3}
    mosaics = {"before": str(pair.before), "after": str(pair.after), "label": pair.change}
    return request(output, cluster, **{**mosaics, **small, **changes})


@pytest.fixture(scope="module")
def prepared(mosaic: SyntheticPair, workers: ClusterConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("datasets") / "mosaic"
    run_preparation(of_mosaic(mosaic, output, workers))
    return output


def published(root: Path) -> None:
    """A folder as CDD and LEVIR have it: pictures of 96 × 80 px; label 255 where the second date is brighter."""
    for split, count in (("train", 5), ("val", 2), ("test", 2)):
        for folder in ("A", "B", "label"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            first = RANDOM.integers(20, 200, (80, 96, 3), dtype=np.uint8)
            label = np.zeros((80, 96), dtype=np.uint8)
            label[10 : 30 + 5 * number, 20:60] = 255
            second = np.where(label[..., None] > 0, first + 50, first).astype(np.uint8)
            for folder, pixels in (("A", first), ("B", second), ("label", label)):
                Image.fromarray(pixels).save(root / split / folder / f"{number:03d}.png")


def test_samples_are_the_mosaics_pixels(prepared: Path, mosaic: SyntheticPair) -> None:
    store = open_dataset(prepared)
    assert (store.window, store.bands, store.dtype, store.resolution) == (64, ("red", "green", "blue"), "uint8", 0.5)
    assert len(store) == 11 * 16
    files = {name: rasterio.open(getattr(mosaic, name)) for name in ("before", "after", "change")}
    for index in RANDOM.choice(len(store), 25, replace=False):
        samples = store.read([int(index)])
        row, col = (int(n) for n in store.positions()[index])
        height, width = min(64, 700 - row), min(64, 1000 - col)
        window = rasterio.windows.Window(col, row, width, height)
        for date, name in enumerate(("before", "after")):
            pixels = files[name].read(window=window)
            valid = files[name].dataset_mask(window=window) > 0
            np.testing.assert_array_equal(getattr(samples, name)[0, :, :height, :width], pixels * valid)
            np.testing.assert_array_equal(samples.valid[0, date, :height, :width], valid)
            assert not samples.valid[0, date, height:].any() and not samples.valid[0, date, :, width:].any()
        np.testing.assert_array_equal(samples.label[0, :height, :width], files["change"].read(1, window=window))
        assert (samples.label[0, height:] == 255).all()


def test_no_sample_of_a_split_touches_a_cell_of_another(prepared: Path) -> None:
    store = open_dataset(prepared)
    cell_of: dict[tuple[int, int], set[int]] = {}
    for (row, col), split in zip(store.positions(), store.splits, strict=True):
        cell_of.setdefault((int(row) // 128, int(col) // 128), set()).add(int(split))
    assert all(len(splits - {-1}) <= 1 for splits in cell_of.values())
    assert {int(split) for split in store.splits} == {-1, 0, 1, 2}


def test_left_out_windows_are_those_with_too_much_nodata(prepared: Path) -> None:
    store = open_dataset(prepared)
    unknown = np.array([(label == 255).mean() for label in np.asarray(store.labels[:])])
    np.testing.assert_array_equal(store.splits == -1, unknown > 0.3)
    assert store.attrs["left_out"] == (unknown > 0.3).sum() > 0


def test_counts_are_those_of_the_labels_and_the_weights_those_of_the_paper(
    prepared: Path, workers: ClusterConfig
) -> None:
    result = count_class_weights(WeightsRequest(dataset=prepared, cluster=workers))
    store = open_dataset(prepared)
    labels = np.asarray(store.labels[:])
    for number, split in enumerate(SPLITS):
        chosen = labels[store.splits == number]
        samples, frequency = result.splits[split]
        assert samples == len(chosen)
        assert (frequency.changed, frequency.unchanged) == ((chosen == 1).sum(), (chosen == 0).sum())
        assert store.attrs["counts"][split]["changed"] == frequency.changed
    kept = store.attrs["class_frequencies"]["train"]
    assert kept["w1_unchanged"] == pytest.approx(1 / (1 - kept["share_changed"]))
    assert kept["w2_changed"] == pytest.approx(1 / kept["share_changed"])
    assert kept["w1_normalised"] + kept["w2_normalised"] == pytest.approx(2)


def test_band_statistics_are_those_of_the_valid_training_pixels(prepared: Path) -> None:
    store = open_dataset(prepared)
    samples = store.read(store.indices("train").tolist())
    values = np.concatenate(
        [image.swapaxes(0, 1)[:, samples.valid[:, n]] for n, image in enumerate((samples.before, samples.after))],
        axis=1,
    ).astype(float)
    for band, found in enumerate(store.attrs["bands"]):
        assert found["mean"] == pytest.approx(values[band].mean())
        assert found["std"] == pytest.approx(values[band].std())


def test_the_store_opens_in_xarray_and_knows_where_it_lies(prepared: Path) -> None:
    data = xr.open_zarr(prepared / "dataset.zarr")
    assert data.sizes == {"sample": 176, "band": 3, "y": 64, "x": 64, "date": 2}
    assert data["split"].attrs["flag_meanings"] == "left_out train val test"
    assert set(data["source"].to_numpy()) == {"scene"}
    assert data.attrs["scenes"]["scene"]["crs"] == "EPSG:32631"


def test_the_report_is_a_page_with_table_one_and_pictures(prepared: Path) -> None:
    page = (prepared / "report.html").read_text()
    assert "Labelled pixels by class (Table I)" in page and "total" in page and "data:image/png" in page
    assert Image.open(prepared / "contact_sheet.png").width > 900


def test_a_second_run_cuts_nothing_and_any_number_of_workers_gives_one_digest(
    prepared: Path, mosaic: SyntheticPair, workers: ClusterConfig, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (prepared / "dataset.zarr/before").rglob("*") if path.is_file()}
    run_preparation(of_mosaic(mosaic, prepared, workers))
    assert before == {path: path.stat().st_mtime_ns for path in before}
    other = tmp_path / "other"
    run_preparation(of_mosaic(mosaic, other, ClusterConfig(workers=1)))
    assert open_dataset(other).digest == open_dataset(prepared).digest
    with pytest.raises(InputError, match=r"parameters\.window: 64 → 96"):
        run_preparation(of_mosaic(mosaic, prepared, workers, window=96))


def test_a_dataset_of_the_version_before_is_gone_on_with(
    prepared: Path, mosaic: SyntheticPair, workers: ClusterConfig, tmp_path: Path
) -> None:
    """Its identity was the digest of what Python calls its scenes."""
    again = tmp_path / "again"
    shutil.copytree(prepared, again)
    described = json.loads((again / "run.json").read_text())
    asked = of_mosaic(mosaic, again, workers)
    files = sorted(str(path) for path in (mosaic.before, mosaic.after, mosaic.change))
    digests = [(path, hashlib.sha256(Path(path).read_bytes()).hexdigest()) for path in files]
    identity = {
        **described["identity"],
        "inputs": hashlib.sha256(repr(digests).encode()).hexdigest(),
        "scenes": hashlib.sha256(repr(find(asked)).encode()).hexdigest(),
    }
    assert identity["scenes"] != described["identity"]["scenes"]
    (again / "run.json").write_text(json.dumps({**described, "identity": identity, "key": sha256_of_facts(identity)}))
    run_preparation(asked)
    assert json.loads((again / "run.json").read_text())["identity"] == identity
    with pytest.raises(InputError, match=r"What changed:\n  parameters\.window: 64 → 96\nChoose"):
        run_preparation(of_mosaic(mosaic, again, workers, window=96))


def test_published_pictures_keep_their_split(workers: ClusterConfig, tmp_path: Path) -> None:
    published(tmp_path / "in")
    summary: DatasetSummary = run_preparation(
        request(tmp_path / "out", workers, source=tmp_path / "in", window=32, stride=16, resolution=0.5)
    )
    store = open_dataset(tmp_path / "out")
    assert {name.split("/")[0]: SPLITS[split] for name, split in zip(store.sources, store.splits, strict=True)} == {
        "train": "train",
        "val": "val",
        "test": "test",
    }
    assert summary.counts["train"][0] == 5 * 4 * 5 and store.resolution == 0.5  # 80 × 96 px, every 16 px
    sample = store.read([int(store.indices("train")[0])])
    with Image.open(tmp_path / "in/train/A/000.png") as picture:
        np.testing.assert_array_equal(sample.before[0], np.moveaxis(np.asarray(picture)[:32, :32], -1, 0))


def test_suspicious_samples_are_named(workers: ClusterConfig, tmp_path: Path) -> None:
    published(tmp_path / "in")
    root = tmp_path / "in"
    for folder in ("A", "B", "label"):
        shutil.copy(root / "train" / folder / "000.png", root / "test" / folder / "999.png")  # a leak
    shutil.copy(root / "train/A/001.png", root / "train/B/001.png")
    Image.fromarray(np.full((80, 96), 255, dtype=np.uint8)).save(root / "val/label/000.png")
    summary = run_preparation(request(tmp_path / "out", workers, source=root, window=96))
    found = {what: example for what, _, example in summary.suspicious}
    assert "train/001" in found["samples whose two dates are the same picture"]
    assert "val/000" in found["samples all of whose labelled pixels are changed"]
    assert (
        "train/000" in found["near-duplicates across splits"] and "test/999" in found["near-duplicates across splits"]
    )
    assert "near-duplicates across splits" in (tmp_path / "out/report.html").read_text()


def test_bad_labels_are_all_listed_nothing_is_left_behind_and_the_mended_folder_works(
    workers: ClusterConfig, tmp_path: Path
) -> None:
    published(tmp_path / "in")
    label = tmp_path / "in/train/label/002.png"
    good = label.read_bytes()
    Image.fromarray(RANDOM.integers(0, 255, (80, 96), dtype=np.uint8)).save(label)
    Image.fromarray(np.zeros((70, 96), dtype=np.uint8)).save(tmp_path / "in/val/label/001.png")
    with pytest.raises(InputError, match="2 scenes cannot be used") as refused:
        run_preparation(request(tmp_path / "out", workers, source=tmp_path / "in", window=32))
    assert "002.png is no label" in str(refused.value) and "96 × 70 px" in str(refused.value)
    assert not (tmp_path / "out/dataset.zarr").exists()
    label.write_bytes(good)
    Image.fromarray(np.zeros((80, 96), dtype=np.uint8)).save(tmp_path / "in/val/label/001.png")
    run_preparation(request(tmp_path / "out", workers, source=tmp_path / "in", window=32))
    assert open_dataset(tmp_path / "out").digest


def test_an_unreadable_picture_is_refused_by_name(workers: ClusterConfig, tmp_path: Path) -> None:
    published(tmp_path / "in")
    (tmp_path / "in/test/B/001.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"001\.png is none of"):
        run_preparation(request(tmp_path / "out", workers, source=tmp_path / "in", window=32))


def test_a_truncated_picture_fails_its_shard_and_the_rest_is_kept(workers: ClusterConfig, tmp_path: Path) -> None:
    published(tmp_path / "in")
    path = tmp_path / "in/test/B/001.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((FailedBlocksError, InputError), match=r"001\.png"):
        run_preparation(request(tmp_path / "out", workers, source=tmp_path / "in", window=32, shard=16, retries=0))
    assert not (tmp_path / "out/dataset.zarr").exists()
    with pytest.raises(InputError, match="is not finished"):
        open_dataset(tmp_path / "out")


def test_a_dataset_without_change_in_training_is_refused(workers: ClusterConfig, tmp_path: Path) -> None:
    published(tmp_path / "in")
    for path in (tmp_path / "in/train/label").iterdir():
        Image.fromarray(np.zeros((80, 96), dtype=np.uint8)).save(path)
    with pytest.raises(InputError, match=r"not one changed pixel in the 45 training samples"):
        run_preparation(request(tmp_path / "out", workers, source=tmp_path / "in", window=32))
    assert not (tmp_path / "out/dataset.zarr").exists()


def test_lost_and_changed_shards_are_noticed(prepared: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    store = DatasetStore(copy / "dataset.zarr")
    shard = next(path for path in (copy / "dataset.zarr/label/c/2").rglob("*") if path.is_file())
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 3] ^= 0xFF
    shard.write_bytes(damaged)
    with pytest.raises(IntegrityError, match="changed at rest"):
        store.read(list(range(32, 48)))
    shard.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        store.read([32])


def test_a_store_of_another_version_is_refused(prepared: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    DatasetStore(copy / "dataset.zarr").set_attrs({"format": 99})
    with pytest.raises(InputError, match="dataset format 99; this version reads format 1"):
        open_dataset(copy)


def test_weights_of_one_class_are_refused(prepared: Path, workers: ClusterConfig, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    store = DatasetStore(copy / "dataset.zarr")
    only_still = np.where(store.pixels("changed") > 0, -1, store.splits).astype(np.int8)
    store.finish(only_still, changed=store.pixels("changed"), unchanged=store.pixels("unchanged"), attrs={})
    with pytest.raises(TrainingError, match=r"0 changed and .* a class without a pixel has no finite weight"):
        count_class_weights(WeightsRequest(dataset=copy, cluster=workers))


def test_weights_are_not_written_beside_another_process(prepared: Path, workers: ClusterConfig, tmp_path: Path) -> None:
    """The store's description is rewritten whole: what the other one has written would be lost."""
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    before = (copy / "dataset.zarr/zarr.json").read_bytes()
    with folder_lock(copy), pytest.raises(InputError, match=r"another process .* is at work in"):
        count_class_weights(WeightsRequest(dataset=copy, cluster=workers))
    assert (copy / "dataset.zarr/zarr.json").read_bytes() == before
    count_class_weights(WeightsRequest(dataset=copy, cluster=workers))


def test_the_command_prints_what_came_of_it(dasnet: Dasnet, tmp_path: Path) -> None:
    published(tmp_path / "in")
    ended = dasnet("prepare", tmp_path / "in", "--output", tmp_path / "out", "--window", 32)
    assert ended.code == 0, ended.err
    assert "labels: 255 changed, 0 unchanged (labels of 0 and 255)" in ended.err and "Traceback" not in ended.err
    assert str(tmp_path / "out/report.html") in ended.out
    assert json.loads((tmp_path / "out/run.json").read_text())["state"] == "finished"
    refused = dasnet("prepare", tmp_path / "nowhere", "--output", tmp_path / "other")
    assert refused.code == 2 and "neither a folder" in refused.err and not (tmp_path / "other").exists()

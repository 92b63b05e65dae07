"""What labels mean, from the command to the store: guessed and said, named by options, or refused with the rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from flows.cluster.config import ClusterConfig
from flows.dataset.request import PrepareRequest
from flows.dataset.run import run_preparation
from flows.evaluation.mosaic import rule_of_label
from storage.datasets.label_options import LabelOptions
from storage.datasets.store import DatasetStore, open_dataset
from storage.errors import InputError
from tests.flows.observers import recorded
from tests.rasters import geotiff

CLASSES = np.zeros((256, 256), dtype=np.uint8)
CLASSES[:, 20:60] = 1
CLASSES[:, 240:] = 255


def asked(folder: Path, cluster: ClusterConfig, label: NDArray[Any], **options: Any) -> PrepareRequest:
    """One pair of mosaics with this label, in windows of 64 px; what `geotiff` takes goes to the label."""
    profile = {name: options.pop(name) for name in ("nodata",) if name in options}
    images = np.random.default_rng(0).integers(20, 200, (2, 3, 256, 256)).astype(np.uint8)
    paths = {
        name: str(geotiff(folder / f"{name}.tif", pixels))
        for name, pixels in zip(("before", "after"), images, strict=True)
    }
    paths["label"] = str(geotiff(folder / "label.tif", label[None], **profile))
    small = {"window": 64, "cell": 1, "shard": 8, "cluster": cluster, "output": folder / "out"}
    return PrepareRequest.model_validate({**paths, **small, **options})


def labels_of(store: DatasetStore) -> NDArray[np.uint8]:
    """(256, 256), put together from the samples."""
    whole = np.zeros((256, 256), dtype=np.uint8)
    for (row, col), label in zip(store.positions(), np.asarray(store.labels[:]), strict=True):
        whole[row : row + 64, col : col + 64] = label
    return whole


def test_a_guess_is_told_recorded_and_read_by_all_workers(workers: ClusterConfig, tmp_path: Path) -> None:
    with recorded() as observer:
        summary = run_preparation(asked(tmp_path, workers, CLASSES))
    store = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(labels_of(store), CLASSES)
    counted = sum(frequency.changed for _, frequency in summary.counts.values())
    assert counted == (CLASSES == 1).sum()
    rule = store.attrs["label_rule"]
    assert (rule["changed"], rule["unchanged"], rule["ignored"], rule["given"]) == ([1], [0], [255], False)
    assert summary.labels.startswith("1 changed, 0 unchanged, 255 ignored")
    assert any("255 beside 0 and 1 is taken for ignored" in text for text in observer.all("warn"))
    assert "255 beside 0 and 1" in summary.report.read_text()


def test_options_win_over_the_guess(workers: ClusterConfig, tmp_path: Path) -> None:
    options = {"changed": "255", "unchanged": "0,1"}
    run_preparation(asked(tmp_path, workers, CLASSES, **options))
    store = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(labels_of(store), CLASSES == 255)
    assert store.attrs["label_rule"]["unchanged"] == [0, 1] and store.attrs["label_rule"]["given"]
    with pytest.raises(InputError, match="out"):  # another reading is another dataset
        run_preparation(asked(tmp_path, workers, CLASSES))


def test_nodata_that_is_a_class_is_read_as_it(workers: ClusterConfig, tmp_path: Path) -> None:
    binary = np.where(CLASSES == 1, 1, 0).astype(np.float32)
    summary = run_preparation(asked(tmp_path, workers, binary, nodata=0))
    np.testing.assert_array_equal(labels_of(open_dataset(tmp_path / "out")), binary)
    assert any("nodata is one of their two values" in text for text in summary.warnings)


@pytest.mark.parametrize(
    ("label", "options", "words"),
    [
        (np.where(CLASSES == 1, 2, 1), {}, r"label\.tif is no label of change.*--changed, --unchanged and --ignored"),
        (np.where(CLASSES < 256, 1, 0), {}, r"all that is labelled .*label\.tif.* is changed by the rule 1 changed"),
        (np.where(CLASSES == 1, 1, 255) * (np.arange(256) > 9), {}, r"% of the labels' pixels are ignored by the rule"),
        (CLASSES, {"changed": "1", "unchanged": "0"}, r"none of --changed.*names: 255 \(4,096 px\)"),
    ],
    ids=["one and two", "all changed", "mostly ignored", "a value not named"],
)
def test_what_cannot_be_told_is_refused_and_nothing_is_left(
    workers: ClusterConfig, tmp_path: Path, label: NDArray[Any], options: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        run_preparation(asked(tmp_path, workers, label.astype(np.uint8), **options))
    assert not (tmp_path / "out/dataset.zarr").exists() and not (tmp_path / "out/run.json").exists()


def test_a_value_has_one_meaning() -> None:
    paths = {"before": "a.tif", "after": "b.tif", "label": "l.tif", "output": "out"}
    with pytest.raises(ValidationError, match="--changed and --ignored both name 1"):
        PrepareRequest.model_validate({**paths, "changed": "1", "ignored": "1,255"})
    with pytest.raises(ValidationError, match="--changed takes numbers"):
        PrepareRequest.model_validate({**paths, "changed": "one"})


def test_a_mosaics_label_has_its_rule_before_anything_is_computed(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "label.tif", CLASSES[None])
    rule = rule_of_label(path, LabelOptions())
    assert rule is not None and rule.to_dict()["ignored"] == [255]
    odd = geotiff(tmp_path / "odd.tif", (CLASSES == 1)[None].astype(np.uint8) + 1)
    with pytest.raises(InputError, match=r"odd\.tif is no label of change"):
        rule_of_label(odd, LabelOptions())
    named = rule_of_label(odd, LabelOptions(changed=(2,), unchanged=(1,)))
    assert named is not None and named.is_given


@pytest.mark.parametrize(("label", "is_refused"), [(CLASSES, True), (CLASSES % 255, False)])
def test_a_store_that_the_version_before_began_goes_on_only_where_labels_mean_the_same(
    workers: ClusterConfig, tmp_path: Path, label: NDArray[np.uint8], is_refused: bool
) -> None:
    """It has no word of its rule, and read 255 beside 1 as changed."""
    request = asked(tmp_path, workers, label)
    run_preparation(request)
    finished = tmp_path / "out/dataset.zarr"
    partial = finished.rename(tmp_path / "out/.dataset.zarr.partial")
    attributes = json.loads((partial / "zarr.json").read_text())
    del attributes["attributes"]["label_rule"]
    (partial / "zarr.json").write_text(json.dumps(attributes))
    if is_refused:
        with pytest.raises(InputError, match="was begun with another reading of labels"):
            run_preparation(request)
    else:
        run_preparation(request)
        np.testing.assert_array_equal(labels_of(open_dataset(tmp_path / "out")), label)

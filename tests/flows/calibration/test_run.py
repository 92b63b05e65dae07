"""An imported graph is calibrated on labelled samples, and then goes the way of every bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from PIL import Image
from pydantic import ValidationError
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from dasnet.errors import BundleError, TrainingError
from dasnet.prediction.bundle import Bundle, is_half, load_bundle, save_bundle
from dasnet.prediction.header import Band
from dasnet.prediction.importing.description import Reading
from dasnet.prediction.importing.onnx_bundle import import_model
from dasnet.prediction.predictor import DasnetPredictor
from flows.calibration.request import CalibrateRequest
from flows.calibration.run import run_calibration
from flows.cluster.config import ClusterConfig
from flows.dataset.request import PrepareRequest
from flows.dataset.run import run_preparation
from flows.detect.job import resolve
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from flows.evaluation.request import EvaluateRequest
from flows.evaluation.run import run_evaluation
from flows.figures.request import FiguresRequest
from flows.figures.run import draw_figures
from flows.inference.model import bundle_model
from flows.interface import Run
from flows.run.observer import observed_by
from storage.datasets.store import DatasetStore, open_dataset
from storage.errors import InputError
from tests.dasnet.graphs import STACKED, write_graph
from tests.flows.observers import Recorder
from tests.flows.squares import DATES, SIDE, squares, write_mosaic, write_pictures

BANDS = tuple(Band(name=name, mean=0.0, std=200.0) for name in ("red", "green", "blue"))


def difference(folder: Path, **changes: object) -> Path:
    """A bundle of the mean absolute difference of both dates."""
    reading = Reading(inputs="stacked", output="probability", bands=BANDS, window=SIDE)
    graph = write_graph(folder / "difference.onnx", STACKED)
    path = import_model(graph, folder / "difference.safetensors", replace(reading, **changes)).bundle.path  # type: ignore[arg-type]
    assert path is not None
    return path


def pixels(store: DatasetStore, bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Distances and labels of the validation split, computed here and not over a cluster."""
    samples = store.read([int(index) for index in store.indices("val")])
    images = np.stack([samples.before, samples.after], axis=1)
    distances = DasnetPredictor(bundle).distances(images, samples.valid)[:, 0]
    known = samples.label != 255
    return distances[known], samples.label[known]


def detection_of(bundle: Path, folder: Path, **settings: Any) -> DetectRequest:
    """What is asked to detect changes between two mosaics of squares, written into a folder."""
    for name, image in zip(DATES, squares(np.random.default_rng(5), 200, 260, 8), strict=True):
        write_mosaic(folder / f"{name}.tif", image)
    return DetectRequest(
        before=str(folder / "before.tif"),
        after=str(folder / "after.tif"),
        output=folder / "run",
        bundle=str(bundle),
        **settings,
    )


def test_calibration_and_threshold_are_those_of_the_samples(
    dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    source, output = difference(tmp_path), tmp_path / "calibrated.safetensors"
    done = run_calibration(CalibrateRequest(bundle=str(source), dataset=dataset, output=output, cluster=workers))
    before, after = load_bundle(source), load_bundle(output)
    distances, labels = pixels(open_dataset(dataset), before)
    fitted = LogisticRegression(C=1e9, max_iter=2000).fit(distances[:, None], labels)
    expected = fitted.predict_proba(distances[:, None])[:, 1]
    found = expit(after.calibration.slope * distances + after.calibration.intercept)
    assert np.abs(found - expected).max() < 0.02
    called = distances >= after.cut
    f1 = 2 * (called & (labels == 1)).sum() / (called.sum() + (labels == 1).sum())
    assert done.fit.after.f1 == pytest.approx(f1, abs=0.01) and f1 > done.fit.before.f1
    assert done.fit.reliability.error < done.fit.reliability_before.error
    assert after.metrics["calibration"]["bundle_sha256"] == before.digest
    assert "not calibrated" not in after.card and f"{done.fit.after.f1:.3f}" in after.card
    assert "Reliability" in done.report.read_text()

    again = tmp_path / "again.safetensors"
    run_calibration(CalibrateRequest(bundle=str(output), dataset=dataset, output=again, cluster=workers))
    assert load_bundle(again).card.count("## Calibrated") == 1


def test_it_detects_is_evaluated_and_is_refused_where_layers_are_wanted(
    dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    source, output = difference(tmp_path), tmp_path / "calibrated.safetensors"
    run_calibration(CalibrateRequest(bundle=str(source), dataset=dataset, output=output, cluster=workers))
    scored = run_evaluation(
        EvaluateRequest(bundle=str(output), dataset=dataset, output=tmp_path / "e", cluster=workers)
    )
    assert scored.samples is not None and scored.samples.confusion.f1 > 0.3
    run_detection(detection_of(output, tmp_path, block=128, window=SIDE, cluster=workers))
    assert float(Run(tmp_path / "run").probability.max()) > load_bundle(output).threshold
    assert "ONNX Runtime" in (tmp_path / "run" / "run.json").read_text()
    with pytest.raises(InputError, match="figures look into layers"):
        draw_figures(FiguresRequest(source=str(output), dataset=dataset, output=tmp_path / "f"))


def test_a_window_that_the_graph_cannot_take_is_refused_before_a_run(
    dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    graph = write_graph(tmp_path / "fixed.onnx", STACKED.replace("H,W", "96,96"))
    bundle = tmp_path / "fixed.safetensors"
    import_model(graph, bundle, Reading(inputs="stacked", output="probability", bands=BANDS))
    asked = detection_of(bundle, tmp_path, window=128, cluster=workers)
    with pytest.raises(InputError, match="cannot look at windows of 128 px: its graph has the fixed size of 96 × 96"):
        run_detection(asked)
    calibrate = CalibrateRequest(
        bundle=str(bundle), dataset=dataset, output=tmp_path / "c.safetensors", cluster=workers
    )
    with pytest.raises(InputError, match=f"samples of {SIDE} px.*fixed size of 96 × 96.*--window 96"):
        run_calibration(calibrate)


def test_an_overlap_stays_with_the_bundle_and_is_that_of_its_own_window_alone(
    dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    source, output, again = (tmp_path / f"{name}.safetensors" for name in ("source", "new", "again"))
    save_bundle(source, replace(load_bundle("water-extent"), window_overlap=None))
    request = CalibrateRequest(bundle=str(source), dataset=dataset, output=output, overlap=8, cluster=workers)
    run_calibration(request)
    run_calibration(CalibrateRequest(bundle=str(output), dataset=dataset, output=again, cluster=workers))
    former, new = bundle_model(str(source)), bundle_model(str(again))
    assert (former.overlap(128), new.overlap(128), new.overlap(256)) == (32, 8, 64)
    assert resolve(detection_of(again, tmp_path)).lattice.overlap == 8
    assert resolve(detection_of(again, tmp_path, overlap=24)).lattice.overlap == 24
    with pytest.raises(InputError, match=r"--overlap 128 px must be less than the window of .*source.*, 128 px"):
        run_calibration(request.model_copy(update={"overlap": 128, "output": tmp_path / "no.safetensors"}))


def test_weights_keep_their_width(dataset: Path, workers: ClusterConfig, tmp_path: Path) -> None:
    for half in (True, False):
        source, output = tmp_path / f"{half}.safetensors", tmp_path / f"{half}-new.safetensors"
        save_bundle(source, load_bundle("synthetic"), half=half)
        run_calibration(CalibrateRequest(bundle=str(source), dataset=dataset, output=output, cluster=workers))
        assert is_half(output) == half
        before, after = load_bundle(source), load_bundle(output)
        assert all(value.equal(before.state[key]) for key, value in after.state.items())


def test_distances_that_say_nothing_are_refused(dataset: Path, workers: ClusterConfig, tmp_path: Path) -> None:
    """One minus the difference: the more alike, the more changed."""
    text = STACKED.replace("p = Tanh(mean)", "t = Tanh(mean) p = Sub(one, t)")
    graph = write_graph(tmp_path / "g.onnx", text.replace("channels = {1}", "channels = {1}, float[1] one = {1}"))
    bundle, output = tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    import_model(graph, bundle, Reading(inputs="stacked", output="probability", bands=BANDS, window=SIDE))
    with pytest.raises(TrainingError, match=r"say nothing about change.*which channel means changed"):
        run_calibration(CalibrateRequest(bundle=str(bundle), dataset=dataset, output=output, cluster=workers))
    assert not output.exists()


def test_a_folder_in_the_place_of_the_bundle_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").mkdir()
    with pytest.raises(BundleError, match=r"c\.safetensors is a folder"):
        run_calibration(
            CalibrateRequest(bundle="synthetic", dataset=tmp_path / "none", output=tmp_path / "c.safetensors")
        )


def test_the_test_split_is_taken_with_a_word(dataset: Path, workers: ClusterConfig, tmp_path: Path) -> None:
    bundle, output, recorder = str(difference(tmp_path)), tmp_path / "c.safetensors", Recorder()
    with observed_by(recorder):
        run_calibration(CalibrateRequest(bundle=bundle, dataset=dataset, output=output, split="test", cluster=workers))
    assert ["fitted to the test split" in words for words in recorder.all("warn")] == [True]


def test_a_bundle_says_until_then_that_it_is_not_calibrated(tmp_path: Path) -> None:
    path = difference(tmp_path)
    assert "is not calibrated" in bundle_model(str(path)).notes[0]
    header = load_bundle(path)
    save_bundle(path, replace(header, provenance={**header.provenance, "calibrated": True}))
    assert bundle_model(str(path)).notes == bundle_model("synthetic").notes == []


@pytest.mark.parametrize("lacking", ["changed", "unchanged"])
def test_a_set_of_one_class_is_refused(lacking: str, workers: ClusterConfig, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "c.safetensors"
    write_pictures(folder, {"train": 1, "val": 1}, seed=1)
    Image.new("L", (SIDE, SIDE), 255 * (lacking == "unchanged")).save(folder / "val" / "label" / "00.png")
    asked = {"source": folder, "output": tmp_path / "data", "window": SIDE, "cluster": workers}
    run_preparation(PrepareRequest.model_validate(asked))
    bundle = str(difference(tmp_path))
    calibrate = CalibrateRequest(bundle=bundle, dataset=tmp_path / "data", output=output, cluster=workers)
    with pytest.raises(InputError, match=f"split val: not one {lacking} pixel in 1 samples"):
        run_calibration(calibrate)
    assert not output.exists() and not output.with_suffix(".calibration").exists()


@pytest.mark.parametrize(
    ("output", "message"), [("b.safetensors", "is the bundle that is calibrated"), ("new", "ends with .safetensors")]
)
def test_where_to_write_is_asked_well(output: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        CalibrateRequest(bundle=str(tmp_path / "b.safetensors"), dataset=tmp_path, output=tmp_path / output)

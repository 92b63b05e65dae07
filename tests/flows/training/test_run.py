"""train and evaluate from end to end: from pictures to a bundle that detect runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dasnet.baselines.scoring import score_untrained
from dasnet.errors import TrainingError
from dasnet.metrics import Confusion
from dasnet.networks.architectures import Architecture
from dasnet.prediction.bundle import load_bundle, random_bundle, save_bundle
from flows.cluster.config import ClusterConfig
from flows.cluster.connect import connect
from flows.dataset.fitting import require_value_range
from flows.dataset.request import PrepareRequest
from flows.dataset.run import run_preparation
from flows.detect.request import DetectRequest
from flows.evaluation.request import EvaluateRequest
from flows.evaluation.run import run_evaluation
from flows.evaluation.tools import CHANGE_VECTORS, ScoringTool
from flows.figures.pictures import HEADINGS
from flows.run.context import StoppedError, stopped_by
from flows.run.fields import assigned, json_or_text
from flows.training.data import require_one_scale
from flows.training.job import TrainingJob
from flows.training.ranks import bundle_task
from flows.training.request import TrainRequest, chosen_recipe
from flows.training.results import TrainingSummary
from flows.training.run import run_training
from storage.datasets.store import Samples, open_dataset
from storage.errors import InputError
from tests.flows.conftest import Dasnet
from tests.flows.observers import Recorder, recorded
from tests.flows.squares import DATES, squares, write_mosaic, write_pictures

EPOCHS, STEPS = 8, 40
ONE_THREAD = ClusterConfig(workers=1, lanes=1)
"""Of torch: the networks are small, and threads that wait for each other on a busy machine cost more than they save."""
SMALL = {
    "epochs": EPOCHS,
    "batch": 4,
    "rate": 1e-2,  # a slower one leaves all distances so near 0 that few stored levels tell them apart
    "head_channels": 16,
    "augmentation": {"crop": 64, "haze": 0.0, "season": 0.0, "shift": 0.0, "blur": 0.0},
}


def request(dataset: Path, output: Path, **changes: Any) -> TrainRequest:
    values = {"dataset": dataset, "output": output, "changes": SMALL, "about": "Squares that appear."}
    values["cluster"] = ONE_THREAD
    return TrainRequest.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def watched(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    output = tmp_path_factory.mktemp("trainings") / "squares"
    with recorded() as recorder:
        summary: TrainingSummary = run_training(request(dataset, output))
    assert summary.epochs == EPOCHS and summary.test is not None
    return output, recorder


@pytest.fixture(scope="module")
def trained(watched: tuple[Path, Recorder]) -> Path:
    return watched[0]


def history(output: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "training/history.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_bundle_says_what_it_is(trained: Path, dataset: Path) -> None:
    bundle, store = load_bundle(trained / "bundle.safetensors"), open_dataset(dataset)
    assert bundle.resolution == 1.0 and bundle.window == 64 and bundle.architecture.head_channels == 16
    assert [band.name for band in bundle.bands] == ["red", "green", "blue"]
    assert bundle.provenance["dataset"]["sha256"] == store.digest
    assert bundle.provenance["recipe"]["epochs"] == EPOCHS
    assert bundle.provenance["class_frequency"]["changed"] == store.attrs["counts"]["train"]["changed"]
    assert bundle.metrics["test"]["f1"] > bundle.metrics["test"]["f1_no_change"] == 0
    assert bundle.metrics["test"]["highest_f1_of_any_threshold"] >= bundle.metrics["test"]["f1"] - 0.01
    # the peer without training is the very method that a comparison shows
    peer = score_untrained("cva", store, "test").confusion
    assert bundle.metrics["test"]["f1_change_vectors_otsu"] == peer.f1 > 0
    for words in ("Squares that appear.", "always “no change”", "change vectors, Otsu's threshold", "from scratch"):
        assert words in bundle.card
    assert (trained / "card.md").read_text() == bundle.card


def test_a_training_goes_on_from_a_bundle(trained: Path, dataset: Path, tmp_path: Path) -> None:
    """On the same squares: what the network knew is there after one epoch at a rate of nearly nothing."""
    path = trained / "bundle.safetensors"
    bundle = load_bundle(path)
    asked = {**SMALL, "epochs": 1, "rate": 1e-9}
    del asked["head_channels"]
    summary = run_training(request(dataset, tmp_path / "on", from_bundle=str(path), changes=asked, figures=False))
    found = load_bundle(summary.bundle)
    assert found.architecture == bundle.architecture and found.bands == bundle.bands
    assert summary.validation_f1 > bundle.metrics["validation"]["f1"] - 0.05
    assert all(
        torch.allclose(found.state[key].float(), value.float(), atol=1e-3)
        for key, value in bundle.state.items()
        if "running_" not in key and value.is_floating_point()
    )
    assert found.provenance["from_bundle"]["sha256"] == load_bundle(path).digest
    assert found.provenance["from_bundle"]["dataset"]["sha256"] == open_dataset(dataset).digest
    words = " ".join(found.card.split())
    assert f"weights from the bundle bundle.safetensors (SHA-256 {bundle.digest[:8]}…, trained on " in words
    with pytest.raises(InputError, match="from_bundle"):  # the same recipe from scratch is another training
        run_training(request(dataset, tmp_path / "on", changes={**SMALL, "epochs": 1, "rate": 1e-9}, figures=False))


def test_a_bundle_that_does_not_fit_is_refused_with_both_sides(dataset: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "small.safetensors")
    save_bundle(path, random_bundle(Architecture(backbone="mobilenet_v3", head_channels=16)))

    def asked(**changes: Any) -> TrainRequest:
        usual = {"dataset": dataset, "output": tmp_path / "o", "from_bundle": path}
        return TrainRequest.model_validate({**usual, **changes})

    assert asked().recipe == "cpu_small" and asked(recipe="paper_cdd").effective.backbone == "mobilenet_v3"
    with pytest.raises(ValueError, match=r"has backbone mobilenet_v3, decoder none, not vgg16, half: a network"):
        asked(changes={"backbone": "vgg16", "decoder": "half"})
    with pytest.raises(ValueError, match="is of dasnet, not of fc-ef"):
        asked(model="fc-ef")
    with pytest.raises(ValueError, match="recipe fc_ef is of fc-ef, not of dasnet"):
        asked(recipe="fc_ef")
    with pytest.raises(ValueError, match=r"weights w\.pth or all of the network from the bundle .*: give one of them"):
        asked(backbone_weights="w.pth")
    with pytest.raises(ValueError, match="no bundle is called 'nowhere'"):
        asked(from_bundle="nowhere")
    other = random_bundle(Architecture(backbone="mobilenet_v3", head_channels=16, in_bands=1))
    save_bundle(tmp_path / "pan.safetensors", other)
    with pytest.raises(InputError, match=r"pan\.safetensors"):
        run_training(asked(from_bundle=str(tmp_path / "pan.safetensors")))
    deep = random_bundle(Architecture(backbone="mobilenet_v3", head_channels=16), dtype="uint16")
    save_bundle(tmp_path / "deep.safetensors", deep)
    with pytest.raises(InputError, match=r"deep\.safetensors takes uint16, .* has uint8"):
        run_training(asked(from_bundle=str(tmp_path / "deep.safetensors")))
    scaled = replace(deep, dtype="uint8", bands=tuple(replace(band, scale=0.1, offset=1.0) for band in deep.bands))
    with pytest.raises(
        InputError, match=r"band band1 is value · 2.0 \+ 0.0, bundle scaled has learnt from values · 0.1"
    ):
        store = open_dataset(dataset)
        store.attrs["bands"] = [{**band, "scale": 2.0, "offset": 0.0} for band in store.attrs["bands"]]
        require_one_scale(store, scaled, name="scaled")


def test_of_two_dates_alike_change_vectors_call_nothing_changed() -> None:
    image = np.random.default_rng(3).integers(0, 255, (1, 3, 16, 16)).astype(np.uint8)
    label = np.zeros((1, 16, 16), dtype=np.uint8)
    samples = Samples(before=image, after=image, valid=np.ones((1, 2, 16, 16), dtype=bool), label=label)
    store: Any = SimpleNamespace(
        path="alike", bands=("r", "g", "b"), indices=lambda split: np.array([0]), read=lambda indices: samples
    )
    predictor: Any = None
    tool = ScoringTool(store=store, split="test", predictor=predictor, cut=1.0)
    assert tool(CHANGE_VECTORS) == {"confusion": None}


def test_what_a_person_watches(watched: tuple[Path, Recorder]) -> None:
    output, recorder = watched
    artifacts = recorder.artifacts
    assert ("begin", "train", STEPS, 0) in recorder.events and recorder.advanced("train") == STEPS
    epochs = artifacts["epochs"]
    assert len(epochs.rows) == EPOCHS and {"loss", "F1", "η", "γ", "threshold"} <= set(epochs.header)
    for picture in ("samples", "curves", "attention-scales", "reliability", *HEADINGS):
        assert artifacts[picture].png.startswith(b"\x89PNG")
    assert "always “no change”" in artifacts["test"].markdown
    page = (output / "report.html").read_text()
    assert "after each epoch, as in Figure 9" in page and "Reliability on validation" in page
    assert all(heading in page for heading in HEADINGS.values())


def test_tensorboard_has_the_whole_curve(trained: Path) -> None:
    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    loss = events.Scalars("train/loss")
    assert [event.step for event in loss] == list(range(STEPS))
    assert loss[7].value == pytest.approx(history(trained, "step")[7]["loss"], rel=1e-5)
    assert len(events.Scalars("validation/f1")) == EPOCHS


def test_evaluate_agrees_with_training_and_with_a_count_by_hand(
    trained: Path, dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    bundle = trained / "bundle.safetensors"
    summary = run_evaluation(
        EvaluateRequest(bundle=str(bundle), dataset=dataset, output=tmp_path / "e", cluster=workers)
    )
    assert summary.samples is not None
    loaded, store = load_bundle(bundle), open_dataset(dataset)
    assert summary.samples.confusion.f1 == pytest.approx(loaded.metrics["test"]["f1"])
    from dasnet.prediction.predictor import DasnetPredictor

    samples = store.read(store.indices("test").tolist())
    predictor = DasnetPredictor(loaded, precision="float32")
    distance = predictor.distances(np.stack([samples.before, samples.after], axis=1), samples.valid)[:, 0]
    probability = loaded.calibration.probability(torch.from_numpy(distance)).numpy()
    by_hand = Confusion.count(probability >= loaded.threshold, samples.label)
    assert summary.samples.confusion.total == by_hand.total
    assert summary.samples.confusion.f1 == pytest.approx(by_hand.f1, abs=1e-3)
    written = json.loads((tmp_path / "e/evaluation.json").read_text())["samples"]
    assert written["intervals_95"]["f1"][0] <= written["f1"] <= written["intervals_95"]["f1"][1]
    page = (tmp_path / "e/report.html").read_text()
    assert "Worst samples, by wrong pixels" in page and "Beside what needs no training" in page


def test_a_mosaic_is_scored_through_detect_and_tile_by_tile(
    trained: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    random = np.random.default_rng(5)
    for name, pixels in zip(DATES, squares(random, 300, 420, 12), strict=True):
        write_mosaic(tmp_path / f"{name}.tif", pixels)
    detect = DetectRequest(
        before=str(tmp_path / "before.tif"),
        after=str(tmp_path / "after.tif"),
        output=tmp_path / "x",
        block=128,
        cluster=workers,
    )
    summary = run_evaluation(
        EvaluateRequest(
            bundle=str(trained / "bundle.safetensors"),
            output=tmp_path / "e",
            mosaic=detect,
            label=tmp_path / "label.tif",
            cluster=workers,
        )
    )
    assert summary.mosaic is not None
    with (
        rasterio.open(tmp_path / "e/run/change_probability.tif") as found,
        rasterio.open(tmp_path / "label.tif") as truth,
    ):
        stored, label = found.read(1), truth.read(1) // 255
    threshold = load_bundle(trained / "bundle.safetensors").threshold
    assert summary.mosaic.mosaic == Confusion.count(stored / 254 >= threshold, label)
    assert summary.mosaic.tiles.total == label.size and summary.mosaic.unlabelled == 0
    # windows by themselves are cut where the mosaic is; by chance F1 would be 0.11
    assert min(summary.mosaic.tiles.f1, summary.mosaic.mosaic.f1) > 0.3
    assert "The whole mosaic" in (tmp_path / "e/report.html").read_text()


def test_another_network_goes_the_same_way(dataset: Path, one_rank: ClusterConfig, tmp_path: Path) -> None:
    changes = {"width": 4, "epochs": 3, "batch": 4, "rate": 1e-2, "augmentation": {"crop": 64}}
    summary = run_training(request(dataset, tmp_path / "t", recipe="fc_siam_diff", changes=changes, cluster=one_rank))
    assert summary.test is not None and summary.test.confusion.f1 > 0.3
    bundle = load_bundle(summary.bundle)
    assert bundle.architecture.to_dict() == {"method": "fc-siam-diff", "in_bands": 3, "width": 4}
    recipe = bundle.provenance["recipe"]
    assert recipe["loss"] == "cross-entropy" and not {"backbone", "margin_changed"} & set(recipe)
    assert "FC-Siam-diff (Daudt et al. 2018), 4 channels" in bundle.card and "px apart" not in bundle.card
    assert "loss cross-entropy." in bundle.card
    page = (tmp_path / "t/report.html").read_text()
    assert "Loss and its parts" in page and "Attention" not in page
    random = np.random.default_rng(6)
    for name, pixels in zip(DATES, squares(random, 100, 110, 2), strict=True):
        write_mosaic(tmp_path / f"{name}.tif", pixels)
    scored = run_evaluation(
        EvaluateRequest(
            bundle=str(summary.bundle),
            output=tmp_path / "e",
            mosaic=DetectRequest(
                before=str(tmp_path / "before.tif"),
                after=str(tmp_path / "after.tif"),
                output=tmp_path / "x",
                block=64,
                cluster=one_rank,
            ),
            label=tmp_path / "label.tif",
            cluster=one_rank,
        )
    )
    assert scored.mosaic is not None and scored.mosaic.mosaic.f1 > 0.3
    item = json.loads((tmp_path / "e/run/item.json").read_text())
    assert item["properties"]["processing:lineage"] == "Change probability by FC-Siam-diff (Daudt et al. 2018)"


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bits(trained: Path, dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "flows", "train", str(dataset), "--output", str(output), "--threads", "1"]
    for name, value in SMALL.items():
        if isinstance(value, dict):
            command += [word for n, v in value.items() for word in ("--set", f"{name}.{n}={v}")]
        else:
            command += ["--set", f"{name}={value}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0)
    path = output / "training/history.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (path.exists() and path.read_bytes().count(b'"epoch", ') >= 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(history(output, "step")) < STEPS
    time.sleep(2)  # the worker notices that its driver is gone
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert [s["loss"] for s in history(output, "step")] == [s["loss"] for s in history(trained, "step")]
    assert "Traceback" not in ended.stderr and "F1" in ended.stdout


def test_two_ranks_train_one_network(dataset: Path, trained: Path, one_rank: ClusterConfig, tmp_path: Path) -> None:
    changes = {**SMALL, "epochs": 1}
    train_two = request(dataset, tmp_path / "two", changes=changes, cluster=one_rank.model_copy(update={"workers": 2}))
    try:
        run_training(train_two)
    except TrainingError as error:  # one epoch may be too little to learn; the ranks have met all the same
        assert "learned nothing" in str(error)
    one, two = history(trained, "step"), history(tmp_path / "two", "step")
    assert len(two) == 5
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)


def test_who_stops_does_not_wait_for_calibration(
    dataset: Path, one_rank: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison's trainings run in threads, which Ctrl-C does not reach."""
    monkeypatch.setattr("flows.training.ranks.make_bundle", lambda task, path: time.sleep(20))
    job = TrainingJob(request=request(dataset, tmp_path / "t", cluster=one_rank), store=open_dataset(dataset))
    stop, began = threading.Event(), time.monotonic()
    threading.Timer(1.0, stop.set).start()
    with connect(one_rank, workers_stay=True) as cluster, stopped_by(stop), pytest.raises(StoppedError):
        bundle_task(job, cluster)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"changes": {"augmentation": {"crop": 96}}}, "crops 96 px out of samples of 64 px"),
        (
            {"changes": {**SMALL, "backbone": "vgg16"}, "backbone_weights": "x.pth"},
            "no such file of weights",
        ),
        ({"dataset": "nowhere"}, "nowhere does not exist"),
        ({"cluster": ClusterConfig(workers=3)}, r"a batch of 4 in 1 passes .* over 3 ranks: ask for 2 workers"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_written(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((TrainingError, InputError), match=message):
        run_training(request(**{"dataset": dataset, "output": tmp_path / "t", **changes}))
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("dtype", "times", "said"),
    [
        ("float32", 10, r"values about .* between 0 and 1: set augmentation\.peak to what is nearly white there"),
        (
            "uint16",
            10,
            r"a value lies above 2\d\d\d, but .* to reach 65535, .*: set augmentation\.peak .*, 2\d\d\d for",
        ),
    ],
)
def test_images_that_do_not_fill_the_augmentations_range_are_refused(
    workers: ClusterConfig, tmp_path: Path, dtype: str, times: int, said: str
) -> None:
    """Photometric augmentation clips at its peak: values of hundreds would all become 1, or drown in a veil."""
    random = np.random.default_rng(2)
    rows = ["name,before,after,label,split"]
    for split in ("train", "val"):
        for name, pixels in zip(DATES, squares(random, 64, 64, 1), strict=True):
            values = pixels // 255 if name == "label" else pixels.astype(dtype) * times
            write_mosaic(tmp_path / f"{split}-{name}.tif", values)
        rows.append(f"{split},{split}-before.tif,{split}-after.tif,{split}-label.tif,{split}")
    (tmp_path / "scenes.csv").write_text("\n".join(rows))
    run_preparation(
        PrepareRequest(source=tmp_path / "scenes.csv", output=tmp_path / "data", window=64, cluster=workers)
    )
    hazy = {**SMALL, "augmentation": {"crop": 64, "haze": 0.2}}
    with pytest.raises(TrainingError, match=said):
        run_training(request(tmp_path / "data", tmp_path / "t", changes=hazy))
    store = open_dataset(tmp_path / "data")
    require_value_range(store, peak=4000.0, setting="", otherwise="")
    with pytest.raises(TrainingError, match="between 0 and 700"):
        require_value_range(store, peak=700.0, setting="", otherwise="")
    # what fills its type's range does, however it is spread; and of a skewed band a little of the deviation is below 0
    bands = [{**band, "mean": 30000.0, "std": 19000.0} for band in store.attrs["bands"]]
    full = SimpleNamespace(dtype="uint16", attrs={"bands": bands}, path="full")
    require_value_range(full, peak=0.0, setting="", otherwise="")
    skewed = SimpleNamespace(dtype="float32", attrs={"bands": [{"name": "b", "mean": 0.1, "std": 0.08}]}, path="skewed")
    require_value_range(skewed, peak=0.0, setting="", otherwise="")
    clouded = SimpleNamespace(
        dtype="uint16", attrs={"bands": [{"name": "b", "mean": 1016.0, "std": 2210.0}]}, path="s2"
    )
    with pytest.raises(TrainingError, match="9856 for example"):
        require_value_range(clouded, peak=0.0, setting="", otherwise="")
    require_value_range(clouded, peak=9856.0, setting="", otherwise="")
    for mean, std in ((-12.0, 3.0), (0.0, 1.0)):
        negative = SimpleNamespace(
            dtype="float32", attrs={"bands": [{"name": "b", "mean": mean, "std": std}]}, path="db"
        )
        for peak in (0.0, 100.0):
            with pytest.raises(TrainingError, match=r"db: band b has values about .* some seem to lie below 0"):
                require_value_range(negative, peak=peak, setting="", otherwise="")


def test_without_a_test_split_there_is_a_bundle_without_test_scores(one_rank: ClusterConfig, tmp_path: Path) -> None:
    """A split whose samples have no change cannot be scored either: the work of all epochs must not be lost for it."""
    write_pictures(tmp_path / "in", {"train": 8, "val": 8, "test": 8}, seed=4, count={"test": 0})
    asked = {"source": tmp_path / "in", "output": tmp_path / "out", "window": 64, "resolution": 1.0}
    run_preparation(PrepareRequest.model_validate({**asked, "cluster": one_rank}))
    changes = {**SMALL, "epochs": 10, "samples_per_epoch": 20}
    summary = run_training(request(tmp_path / "out", tmp_path / "t", changes=changes, cluster=one_rank))
    assert summary.test is None and summary.report.exists()
    bundle = load_bundle(summary.bundle)
    assert "test" not in bundle.metrics and "no test split with both classes" in bundle.card
    assert "data:image/png" in summary.report.read_text()


def test_a_bundle_for_other_images_is_refused(dataset: Path, tmp_path: Path) -> None:
    save_bundle(tmp_path / "four.safetensors", random_bundle(Architecture(backbone="mobilenet_v3", in_bands=4)))
    with pytest.raises(InputError, match=r"has 3 bands \(red, green, blue\), bundle .*four.* needs 4 "):
        run_evaluation(
            EvaluateRequest(bundle=str(tmp_path / "four.safetensors"), dataset=dataset, output=tmp_path / "e")
        )
    assert not (tmp_path / "e").exists()


def test_bands_are_those_of_the_bundles_names(
    trained: Path, dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    loaded = load_bundle(trained / "bundle.safetensors")
    first = next(name for name, weight in loaded.state.items() if weight.ndim == 4 and weight.shape[1] == 3)
    state = {**loaded.state, first: loaded.state[first].flip(1)}
    turned = tmp_path / "turned.safetensors"
    save_bundle(turned, replace(loaded, state=state, bands=loaded.bands[::-1], path=None, digest=""))
    summary = run_evaluation(
        EvaluateRequest(bundle=str(turned), dataset=dataset, output=tmp_path / "e", cluster=workers)
    )
    assert summary.samples is not None
    before = loaded.metrics["test"]
    assert summary.samples.confusion.f1 == pytest.approx(before["f1"], abs=1e-3)
    assert summary.samples.change_vectors.f1 == pytest.approx(before["f1_change_vectors_otsu"], abs=1e-3)


def test_status_of_a_training_and_of_its_dataset(dasnet: Dasnet, trained: Path, dataset: Path) -> None:
    ended = dasnet("status", trained)
    assert ended.code == 0 and "finished" in ended.out and f"{STEPS} steps, {EPOCHS} epochs, best F1" in ended.out
    ended = dasnet("status", dataset)
    assert ended.code == 0 and "dataset" in ended.out and "1 done, 0 failed" in ended.out


def test_settings_from_the_command_line() -> None:
    texts = ["epochs=5", "augmentation.haze=0.4", "loss=contrastive", "supervision=[0,0,1]"]
    assert assigned(texts, "--set", parse=json_or_text) == {
        "epochs": 5,
        "augmentation": {"haze": 0.4},
        "loss": "contrastive",
        "supervision": [0, 0, 1],
    }
    with pytest.raises(ValueError, match="name=value"):
        assigned(["epochs"], "--set")


def test_a_model_stands_for_its_recipe() -> None:
    assert chosen_recipe(model=None, recipe=None) == chosen_recipe(model="dasnet", recipe=None) == "cpu_small"
    assert chosen_recipe(model="dasnet", recipe="paper_cdd") == chosen_recipe(model=None, recipe="paper_cdd")
    assert chosen_recipe(model="fc-siam-diff", recipe=None) == "fc_siam_diff"
    with pytest.raises(ValueError, match="the recipe paper_cdd is of dasnet, not of fc-ef"):
        chosen_recipe(model="fc-ef", recipe="paper_cdd")
    with pytest.raises(ValueError, match="no method that is trained is called 'unet': there are dasnet, fc-ef, "):
        chosen_recipe(model="unet", recipe=None)
    paths = {"dataset": "data", "output": "out"}
    with pytest.raises(ValueError, match=r"method fc-ef is trained by cross-entropy.* start from its recipe, fc_ef"):
        TrainRequest.model_validate({**paths, "changes": {"method": "fc-ef"}})
    with pytest.raises(ValueError, match=r"method fc-ef has no backbone that w\.pth could be loaded into"):
        TrainRequest.model_validate({**paths, "recipe": "fc_ef", "backbone_weights": "w.pth"})


def test_the_command_refuses_without_a_traceback(dasnet: Dasnet, dataset: Path, tmp_path: Path) -> None:
    ended = dasnet("train", dataset, "--output", tmp_path / "t", "--set", "rate=-1")
    assert ended.code == 2 and "changes.rate" in ended.err and "Traceback" not in ended.err
    ended = dasnet("train", dataset, "--output", tmp_path / "t", "--model", "fc-ef", "--set", "attention=spatial")
    assert ended.code == 2 and "has no attention" in ended.err and "Traceback" not in ended.err
    ended = dasnet("evaluate", "synthetic", "--output", tmp_path / "e")
    assert ended.code == 2 and "give a dataset, a mosaic with its label, or both" in ended.err

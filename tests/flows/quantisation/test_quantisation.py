"""A bundle is quantised on a dataset, held against itself, and detects in integers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from pydantic import ValidationError

pytest.importorskip("openvino", reason="the extra int8 is not installed")
pytest.importorskip("nncf", reason="the extra int8 is not installed")

from dasnet.errors import BundleError
from dasnet.networks.architectures import Architecture, PeerArchitecture
from dasnet.networks.precomputed import PrecomputedArchitecture
from dasnet.prediction.bundle import Bundle, load_bundle, random_bundle, save_bundle
from dasnet.prediction.header import read_header
from dasnet.prediction.predictor import DasnetPredictor
from dasnet.prediction.quantised import description as descriptions
from dasnet.prediction.quantised.session import Session
from flows.calibration.request import CalibrateRequest
from flows.calibration.run import run_calibration
from flows.cluster.config import ClusterConfig
from flows.detect.job import resolve
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from flows.evaluation.request import EvaluateRequest
from flows.evaluation.run import run_evaluation
from flows.inference.estimate import timed
from flows.quantisation.request import QuantiseRequest
from flows.quantisation.run import QuantisationSummary, run_quantisation
from flows.run.directory import DifferentRunError
from flows.run.observer import observed_by
from storage.datasets.store import open_dataset
from storage.errors import InputError
from tests.flows.observers import Recorder
from tests.flows.squares import DATES, SIDE, squares, write_mosaic

NETWORK = Architecture(backbone="timm:resnet10t", head_channels=16, decoder="half")


def calibrated(bundle: Bundle, folder: Path, dataset: Path, workers: ClusterConfig) -> Path:
    """A bundle that was never trained, with the threshold and the calibration that fit it best."""
    path, output = folder / "random.safetensors", folder / "calibrated.safetensors"
    store = open_dataset(dataset)
    named = replace(
        bundle,
        bands=tuple(replace(band, name=name) for band, name in zip(bundle.bands, store.bands, strict=True)),
        resolution=None,
    )
    save_bundle(path, named, half=False)
    run_calibration(CalibrateRequest(bundle=str(path), dataset=dataset, output=output, cluster=workers))
    return output


@pytest.fixture(scope="module")
def source(dataset: Path, workers: ClusterConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated(random_bundle(NETWORK, window=SIDE), tmp_path_factory.mktemp("source"), dataset, workers)


@pytest.fixture(scope="module")
def summary(
    source: Path, dataset: Path, workers: ClusterConfig, tmp_path_factory: pytest.TempPathFactory
) -> QuantisationSummary:
    output = tmp_path_factory.mktemp("quantised") / "int8.safetensors"
    return run_quantisation(
        QuantiseRequest(bundle=str(source), dataset=dataset, output=output, samples=6, cluster=workers)
    )


@pytest.fixture(scope="module")
def mosaics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("mosaics")
    for name, image in zip(DATES, squares(np.random.default_rng(5), 200, 260, 8), strict=True):
        write_mosaic(folder / f"{name}.tif", image)
    return {name: str(folder / f"{name}.tif") for name in ("before", "after")}


def detection(mosaics: dict[str, str], bundle: Path, output: Path, **settings: Any) -> DetectRequest:
    return DetectRequest.model_validate({**mosaics, "bundle": str(bundle), "output": output, **settings})


def levels(run: Path) -> NDArray[np.uint8]:
    return xr.open_zarr(run / "run.zarr", mask_and_scale=False)["change_probability"].to_numpy()[0]


def test_the_bundle_says_what_integers_lose_and_how_fast_they_are(
    source: Path, summary: QuantisationSummary, dataset: Path
) -> None:
    before, after = load_bundle(source), load_bundle(summary.bundle)
    assert after.quantised is not None and after.quantised.images == 12
    assert after.quantised.dataset_sha256 == open_dataset(dataset).digest
    assert set(after.quantised.milliseconds) >= {"float32", "int8"}
    assert (after.threshold, after.calibration) == (before.threshold, before.calibration)
    assert [loss.split for loss in summary.losses] == ["val", "test"]
    facts = after.metrics["quantisation"]
    for loss in summary.losses:
        assert loss.integers.f1 >= loss.float32.f1 - 0.005
        assert facts[loss.split]["f1_int8"] == loss.integers.f1
        row = f"| {loss.split} | 6 | {loss.float32.f1:.4f} | {loss.integers.f1:.4f} |"
        assert row in after.card and after.card.count("## Quantised") == 1
    assert f"int8 {after.quantised.milliseconds['int8']:.3g} ms" in after.card
    assert summary.report.exists()
    assert [path.name for path in summary.bundle.parent.iterdir() if path.suffix == ".safetensors"] == [
        "int8.safetensors"
    ]


def test_both_figures_are_those_of_the_samples(source: Path, summary: QuantisationSummary, dataset: Path) -> None:
    """Counted here, sample by sample, and not over a cluster."""
    store, bundle = open_dataset(dataset), load_bundle(summary.bundle)
    samples = store.read([int(index) for index in store.indices("test")])
    images, known = np.stack([samples.before, samples.after], axis=1), samples.label != 255
    loss = next(loss for loss in summary.losses if loss.split == "test")
    for precision, confusion in (("float32", loss.float32), ("int8", loss.integers)):
        predictor = DasnetPredictor(bundle, device="cpu", precision=precision)  # type: ignore[arg-type]
        called = predictor.distances(images, samples.valid)[:, 0][known] >= bundle.cut
        changed = samples.label[known] == 1
        both = 2 * int((called & changed).sum())
        assert confusion.f1 == pytest.approx(both / (both + int((called != changed).sum())))


def test_detect_in_integers_is_the_same_whatever_the_cut(
    summary: QuantisationSummary, mosaics: dict[str, str], workers: ClusterConfig, tmp_path: Path
) -> None:
    runs = {}
    for block in (128, 192):
        run = tmp_path / f"{block}"
        run_detection(detection(mosaics, summary.bundle, run, precision="int8", block=block, cluster=workers))
        runs[block] = levels(run)
    assert np.array_equal(runs[128], runs[192])
    exact = tmp_path / "exact"
    run_detection(detection(mosaics, summary.bundle, exact, precision="float32", block=128, cluster=workers))
    assert not np.array_equal(levels(exact), runs[128])
    with pytest.raises(DifferentRunError, match="precision: float32 → int8"):
        run_detection(detection(mosaics, summary.bundle, exact, precision="int8", block=128, cluster=workers))


def test_the_plan_says_that_integers_compute_and_times_them(
    summary: QuantisationSummary, mosaics: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda session, image: (computed.append(image.shape), run(session, image))[1])
    job = timed(resolve(detection(mosaics, summary.bundle, tmp_path, precision="int8", window=96)))
    assert job.plan.seconds_per_window is not None and job.plan.seconds_per_window > 0
    assert set(computed) == {(1, 3, 96, 96)}
    assert any(what == "precision" and how.startswith("int8 on CPUs") for what, how in job.describe())
    exact = resolve(detection(mosaics, summary.bundle, tmp_path, precision="float32"))
    assert "precision" not in {what for what, _ in exact.describe()}


def test_what_cannot_detect_in_integers_is_refused_by_the_plan(
    source: Path,
    summary: QuantisationSummary,
    mosaics: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plan(bundle: Path, **settings: Any) -> None:
        resolve(detection(mosaics, bundle, tmp_path, precision="int8", **settings))

    with pytest.raises(InputError, match=r"calibrated\.safetensors: it has no quantised graph.*dasnet quantise"):
        plan(source)
    with pytest.raises(InputError, match=r"windows of 64 px, or .* not of 72 px"):
        plan(summary.bundle, window=72)
    model = load_bundle(summary.bundle)
    assert model.quantised is not None
    monkeypatch.setattr(descriptions.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"OpenVINO; not installed here: openvino; .*dasnet-region\[int8\]"):
        plan(summary.bundle)


def test_a_gpu_does_not_compute_integers(summary: QuantisationSummary) -> None:
    from flows.inference.model import bundle_model

    refusal = bundle_model(str(summary.bundle)).refusal_of_precision("int8", window=SIDE, on_gpu=True)
    assert refusal is not None and "on CPUs, not on a GPU" in refusal


def test_evaluate_scores_integers_too(
    summary: QuantisationSummary, dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    asked = {"bundle": str(summary.bundle), "dataset": dataset, "output": tmp_path / "int8", "cluster": workers}
    scored = run_evaluation(EvaluateRequest.model_validate({**asked, "precision": "int8"}))
    assert scored.samples is not None
    assert scored.samples.confusion == next(loss.integers for loss in summary.losses if loss.split == "test")


def made_to_lose(bundle: Bundle) -> Bundle:
    """The same function in float32; of integers one channel before the embedding takes the whole range.

    A ReLU lets a factor through: the channel is enlarged before it and made small again by the convolution behind it.
    """
    state = {key: value.clone() for key, value in bundle.state.items()}
    for part in ("weight", "bias"):
        state[f"decoder.merge_half.1.{part}"][0] *= 3e4
    state["head.conv8.1.weight"][:, 0] /= 3e4
    return replace(bundle, state=state)


def test_a_bundle_that_loses_by_integers_is_not_written(
    source: Path, dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    losing, output = tmp_path / "losing.safetensors", tmp_path / "int8.safetensors"
    save_bundle(losing, made_to_lose(load_bundle(source)), half=False)
    asked = QuantiseRequest(bundle=str(losing), dataset=dataset, output=output, samples=4, cluster=workers)
    with pytest.raises(
        BundleError, match=r"is not written: integers lose more than 0\.005 of F1.*val F1 0\.\d+ in int8"
    ):
        run_quantisation(asked)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".safetensors"] == ["losing.safetensors"]


def test_a_new_calibration_leaves_the_graph_out_and_says_so(
    summary: QuantisationSummary, dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    asked = CalibrateRequest(
        bundle=str(summary.bundle), dataset=dataset, output=tmp_path / "again.safetensors", cluster=workers
    )
    with pytest.raises(InputError, match="cannot be calibrated in int8"):
        run_calibration(asked.model_copy(update={"precision": "int8"}))
    recorder = Recorder()
    with observed_by(recorder):
        run_calibration(asked)
    assert read_header(asked.output).quantised is None
    assert any(event[0] == "warn" and "will have no quantised graph" in event[1] for event in recorder.events)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        (PrecomputedArchitecture(embedding="l2", in_bands=3), "there is nothing to quantise"),
        (PeerArchitecture(method="fc-ef", width=8), "looks at both at once: there is nothing to quantise"),
    ],
)
def test_what_has_no_embedding_of_one_date_is_refused(
    architecture: Any, reason: str, dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    store = open_dataset(dataset)
    bundle = random_bundle(architecture, window=SIDE)
    bands = tuple(replace(band, name=name) for band, name in zip(bundle.bands, store.bands, strict=True))
    path = tmp_path / "other.safetensors"
    save_bundle(path, replace(bundle, bands=bands), half=False)
    with pytest.raises(BundleError, match=reason):
        run_quantisation(
            QuantiseRequest(bundle=str(path), dataset=dataset, output=tmp_path / "int8.safetensors", cluster=workers)
        )


def test_a_request_names_another_file_and_no_gpu(tmp_path: Path) -> None:
    asked = {"bundle": "synthetic", "dataset": tmp_path, "output": tmp_path / "mine.safetensors"}
    with pytest.raises(ValidationError, match="its name ends with"):
        QuantiseRequest.model_validate({**asked, "output": tmp_path / "mine"})
    with pytest.raises(ValidationError, match="is the bundle that is quantised"):
        QuantiseRequest.model_validate({**asked, "bundle": str(asked["output"])})
    with pytest.raises(ValidationError, match="computed on CPUs"):
        QuantiseRequest.model_validate({**asked, "cluster": {"kind": "cuda"}})

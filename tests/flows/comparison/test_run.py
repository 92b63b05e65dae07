"""compare from end to end: tables that agree with evaluate and with sums by hand, resumed, and with a failure."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

from dasnet.baselines.methods import UNTRAINED
from dasnet.baselines.scoring import score_untrained
from dasnet.baselines.untrained import State
from dasnet.errors import TrainingError
from dasnet.metrics import Confusion
from dasnet.networks.architectures import Architecture, PeerArchitecture
from dasnet.networks.methods import build_network
from dasnet.prediction.bundle import load_bundle
from dasnet.training.pseudo_changes import pseudo_changed
from flows.cluster.config import ClusterConfig
from flows.cluster.connect import connect
from flows.comparison.cost import counted
from flows.comparison.report import margins_picture
from flows.comparison.request import CompareRequest
from flows.comparison.results import Result, Row, spread
from flows.comparison.run import ComparisonSummary, run_comparison
from flows.comparison.tools import make_untrained_robustness_tool, pseudo_changed_sample
from flows.dataset.request import PrepareRequest
from flows.dataset.run import run_preparation
from flows.evaluation.request import EvaluateRequest
from flows.evaluation.run import run_evaluation
from flows.figures.request import FiguresRequest
from flows.figures.run import draw_figures
from flows.run.errors import FailedMethodsError
from storage.datasets.store import Samples, open_dataset
from storage.errors import InputError
from tests.flows.conftest import Dasnet
from tests.flows.observers import Recorder, recorded
from tests.flows.squares import SIDE, write_pictures
from tiling.execute import workers_of
from tiling.ledger import Entry, Ledger

SETTINGS: dict[str, Any] = {
    "epochs": 6,
    "batch": 4,
    "augmentation": {"crop": 64},
    "dasnet": {"head_channels": 16, "augmentation": {"haze": 0.0, "season": 0.0, "shift": 0.0, "blur": 0.0}},
    "fc-siam-diff": {"width": 4, "rate": 0.01},
}


def request(dataset: Path, output: Path, cluster: ClusterConfig | None = None, **changes: Any) -> CompareRequest:
    values = {
        "dataset": dataset,
        "output": output,
        "methods": ("dasnet", "fc-siam-diff", "cva"),
        "seeds": 2,
        "changes": SETTINGS,
        "cluster": cluster or ClusterConfig(workers=2),
    }
    return CompareRequest.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def watched(
    dataset: Path, workers: ClusterConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ComparisonSummary, Recorder]:
    output = tmp_path_factory.mktemp("comparisons") / "squares"
    with recorded() as recorder:
        summary = run_comparison(request(dataset, output, workers, robustness=True))
    return output, summary, recorder


@pytest.fixture(scope="module")
def compared(watched: tuple[Path, ComparisonSummary, Recorder]) -> tuple[Path, ComparisonSummary]:
    return watched[:2]


def lines(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_figure_is_that_of_evaluate(
    compared: tuple[Path, ComparisonSummary], dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    output, summary = compared
    assert summary.trained == 4 and summary.kept == 0
    results = {line["result"]: line for line in lines(output / "results.csv")}
    assert len(results) == 5
    (name,) = [one for one in results if one.startswith("dasnet-seed1")]
    bundle = output / "trainings" / name / "bundle.safetensors"
    asked = EvaluateRequest(bundle=str(bundle), dataset=dataset, output=tmp_path / "e", cluster=workers)
    found = run_evaluation(asked).samples
    assert found is not None
    for score, interval in found.intervals.items():
        assert float(results[name][score]) == interval.value
    assert float(results[name]["highest_f1"]) == found.highest[1].f1
    assert [int(results[name][kind]) for kind in ("tp", "fp", "fn", "tn")] == [
        getattr(found.confusion, kind) for kind in ("tp", "fp", "fn", "tn")
    ]
    assert load_bundle(bundle).provenance["recipe"]["seed"] == 1


def test_means_and_spreads_are_those_of_the_runs(compared: tuple[Path, ComparisonSummary]) -> None:
    output, _ = compared
    results = lines(output / "results.csv")
    rows = {line["row"]: line for line in lines(output / "tables.csv")}
    for method in ("dasnet", "fc-siam-diff"):
        f1 = [float(one["f1"]) for one in results if one["result"].startswith(method)]
        assert len(f1) == 2
        assert float(rows[method]["f1"]) == pytest.approx(sum(f1) / 2)
        assert float(rows[method]["f1_spread"]) == pytest.approx(abs(f1[0] - f1[1]) / 2**0.5)
        assert int(rows[method]["parameters"]) > 0 and int(rows[method]["flops"]) > 0
        assert float(rows[method]["pairs_per_s"]) > 0
    assert rows["cva"]["f1_spread"] == "" and rows["cva"]["results"] == "1"
    table = (output / "tables.md").read_text()
    assert f"{float(rows['dasnet']['f1']):.3f} ± {float(rows['dasnet']['f1_spread']):.3f}" in table


def test_a_method_without_training_is_cut_where_validation_says(
    compared: tuple[Path, ComparisonSummary], dataset: Path
) -> None:
    """Change vectors by NumPy alone: no threshold cuts the validation split better than the one that was frozen."""
    output, summary = compared
    store = open_dataset(dataset)
    facts = json.loads((output / "untrained/cva.json").read_text())
    assert 0 < facts["threshold"] < 1
    lengths, labels = {}, {}
    for split in ("val", "test"):
        samples = store.read(store.indices(split).tolist())
        dates = [np.moveaxis(date, 1, 0).reshape(3, -1).astype(float) for date in (samples.before, samples.after)]
        standard = [(date - date.mean(axis=1, keepdims=True)) / date.std(axis=1, keepdims=True) for date in dates]
        lengths[split] = np.square(standard[1] - standard[0]).sum(axis=0) / 3
        labels[split] = samples.label.reshape(-1)
    best = max(
        Confusion.count(lengths["val"] >= cut, labels["val"]).f1
        for cut in np.quantile(lengths["val"], np.linspace(0, 1, 200))
    )
    assert facts["validation_f1"] == pytest.approx(best, abs=0.02)
    own, p = UNTRAINED["cva"].detector(State.from_dict(facts["state"])).threshold, facts["threshold"]
    by_hand = Confusion.count(lengths["test"] >= own * p / (1 - p), labels["test"])
    for kind, pixels in facts["confusion"].items():
        assert getattr(by_hand, kind) == pytest.approx(pixels, abs=1e-3 * by_hand.total)
    (row,) = [row for row in summary.tables["methods"] if row.name == "cva"]
    assert row.figures["f1"] == (Confusion(**facts["confusion"]).f1, None)


def test_what_a_person_sees(compared: tuple[Path, ComparisonSummary]) -> None:
    output, summary = compared
    page = summary.report.read_text()
    for words in ("Methods (Tables V and VI)", "Side by side", "Robustness", "highest F1 of any threshold", "±"):
        assert words in page
    curves = lines(output / "robustness.csv")
    assert {line["pseudo_change"] for line in curves} == {"season", "haze", "shift", "gain"}
    results = lines(output / "results.csv")
    for method in ("dasnet", "fc-siam-diff"):
        (first,) = [float(one["f1"]) for one in results if one["result"].startswith(f"{method}-seed0")]
        of_method = [line for line in curves if line["method"] == method]
        assert {float(line["f1"]) for line in of_method if float(line["strength"]) == 0} == {first}
        assert len(of_method) == 20
    (alone,) = (float(one["f1"]) for one in results if one["result"] == "cva")
    of_cva = [line for line in curves if line["method"] == "cva"]
    assert len(of_cva) == 20
    assert {float(line["f1"]) for line in of_cva if float(line["strength"]) == 0} == {alone}


def test_what_a_person_is_shown(watched: tuple[Path, ComparisonSummary, Recorder]) -> None:
    output, _, recorder = watched
    artifacts = recorder.artifacts
    table = artifacts["comparison-methods"]
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    written = (output / "tables.md").read_text()
    assert {row["row"] for row in rows} == {"dasnet", "fc-siam-diff", "cva"}
    for row in rows:
        assert f"| {row['row']} | {row['seeds']} | {row['recall']} | {row['precision']} | {row['F1']} |" in written
    for picture in ("methods-f1", "side-by-side", "robustness-season-gain", "robustness-haze-shift"):
        assert artifacts[picture].png.startswith(b"\x89PNG")


def test_a_method_without_training_is_fitted_to_the_pseudo_changes_it_is_judged_on(
    compared: tuple[Path, ComparisonSummary], dataset: Path
) -> None:
    curves = lines(compared[0] / "robustness.csv")
    wanted = ("cva", "shift", 8.0)
    (found,) = (
        float(one["f1"]) for one in curves if (one["method"], one["pseudo_change"], float(one["strength"])) == wanted
    )
    store = open_dataset(dataset)
    kept = store.read(store.indices("test").tolist())
    shifted = {
        int(index): Samples(
            **dict(
                zip(
                    ("before", "after", "valid", "label"),
                    (
                        part[None]
                        for part in pseudo_changed(tuple(parts), operation="shift", strength=8.0, seed=int(index))
                    ),
                    strict=True,
                )
            )
        )
        for *parts, index in zip(kept.before, kept.after, kept.valid, kept.label, store.indices("test"), strict=True)
    }
    threshold = json.loads((compared[0] / "untrained/cva.json").read_text())["threshold"]
    assert found == score_untrained("cva", store, "test", read=shifted.__getitem__).at(threshold).f1
    assert found != score_untrained("cva", store, "test").at(threshold).f1


def test_blas_has_one_thread_while_several_of_a_worker_compute(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that each thread sets and takes back ends, for all of them, with the first that is done."""
    threads = set()

    def seen(*arguments: Any, **settings: Any) -> Samples:
        threads.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return pseudo_changed_sample(*arguments, **settings)

    monkeypatch.setattr("flows.comparison.tools.pseudo_changed_sample", seen)
    with threadpool_limits(limits=2, user_api="blas"), ThreadPoolExecutor(3) as pool:
        tool = make_untrained_robustness_tool(open_dataset(dataset), "cva", 0.5, 0.0)
        scores = list(pool.map(tool, [("season", 0.2), ("haze", 0.4), ("shift", 2.0), ("gain", 0.3)] * 2))
    assert scores[:4] == scores[4:] and threads == {1}


def test_figures_of_a_training_and_of_a_bundle(
    compared: tuple[Path, ComparisonSummary], dataset: Path, tmp_path: Path
) -> None:
    output, _ = compared
    (one,), (other,) = (list(output.glob(f"trainings/{name}-seed0-*")) for name in ("dasnet", "fc-siam-diff"))
    bundle = str(other / "bundle.safetensors")
    of_dasnet = draw_figures(
        FiguresRequest(source=str(one), dataset=dataset, output=tmp_path / "f", beside=bundle, samples=2)
    )
    assert {path.stem for path in of_dasnet.figures} == {"distances", "grad-cam", "attention", "t-sne", "scales"}
    assert not of_dasnet.left_out
    for path in of_dasnet.figures:
        with Image.open(path) as picture:
            assert min(picture.size) > 200 and len(picture.convert("L").getcolors() or ()) > 50
    page = of_dasnet.page.read_text()
    assert page.count("<img") == 5 and "as Figure 11" in page
    of_other = draw_figures(FiguresRequest(source=bundle, dataset=dataset, output=tmp_path / "g", samples=1))
    assert {path.stem for path in of_other.figures} == {"distances", "grad-cam", "t-sne"}
    assert "no spatial attention" in of_other.left_out[0] and "training directory" in of_other.left_out[1]
    with pytest.raises(InputError, match=r"pixel \(64, 0\) lies outside samples of 64 × 64 px"):
        draw_figures(FiguresRequest(source=bundle, dataset=dataset, output=tmp_path / "h", pixel=(64, 0)))
    assert not (tmp_path / "h").exists()


def test_on_a_running_scheduler_each_worker_trains_one_network(
    compared: tuple[Path, ComparisonSummary], dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    """At the same time, and the very networks that two local workers train."""
    with connect(workers) as (client, layout):
        assert layout.workers == 2, "what was there stays"
        assert not client.run(lambda dask_worker: [name for name in dask_worker.plugins if "dasnet" in name])[
            sorted(workers_of(client))[0]
        ]
    spans = []
    for row in compared[1].tables["methods"][:2]:
        events = EventAccumulator(str(compared[0] / "trainings" / row.results[0].name / "tensorboard")).Reload()
        times = [event.wall_time for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
        spans.append((min(times), max(times)))
    (begun, ended), (begun_too, ended_too) = spans
    assert begun < ended_too and begun_too < ended
    found = run_comparison(request(dataset, tmp_path / "c", seeds=1))
    assert (found.trained, found.kept) == (2, 0)
    expected = {row.name: row.results[0] for row in compared[1].tables["methods"]}
    assert {row.name: row.results[0] for row in found.tables["methods"]} == expected


def test_again_trains_nothing_and_more_is_added(compared: tuple[Path, ComparisonSummary], dataset: Path) -> None:
    output, before = compared
    histories = {path: path.stat().st_mtime_ns for path in output.rglob("history.jsonl")}
    assert len(histories) == 4
    again = run_comparison(request(dataset, output, methods=("fc-siam-diff", "cva", "pca-kmeans"), seeds=1))
    assert (again.trained, again.kept) == (0, 1)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("history.jsonl")} == histories
    one, two = ({row.name: row.results[0] for row in summary.tables["methods"]} for summary in (before, again))
    assert one["fc-siam-diff"] == two["fc-siam-diff"] and one["cva"] == two["cva"] and "pca-kmeans" in two


def test_a_method_that_fails_stops_no_other_and_what_was_begun_goes_on(
    compared: tuple[Path, ComparisonSummary], dataset: Path, workers: ClusterConfig
) -> None:
    """fc-siam-diff at an endless rate diverges; a killed training is one without its last state."""
    output, _ = compared
    (one,) = output.glob("trainings/dasnet-seed0-*")
    facts = json.loads((one / "run.json").read_text())
    (one / "run.json").write_text(json.dumps({**facts, "state": "unfinished"}))
    (one / "bundle.safetensors").unlink()
    steps = (one / "training/history.jsonl").read_bytes()
    broken = {**SETTINGS, "fc-siam-diff": {"width": 4, "rate": 1e30}}
    with pytest.raises(FailedMethodsError, match=r"1 failed.*\n  fc-siam-diff-seed0-.*training stopped") as raised:
        run_comparison(request(dataset, output, workers, changes=broken, seeds=1))
    assert len(raised.value.failed) == 1
    assert (one / "bundle.safetensors").exists() and (one / "training/history.jsonl").read_bytes() == steps
    rows = {line["row"]: line for line in lines(output / "tables.csv")}
    assert rows["fc-siam-diff"]["results"] == "0" and "training stopped" in rows["fc-siam-diff"]["failed"]
    assert rows["dasnet"]["results"] == "1" and rows["dasnet"]["failed"] == ""
    assert rows["fc-siam-diff"]["parameters"] == rows["fc-siam-diff"]["f1"] == ""
    page = (output / "report.html").read_text()
    assert "fc-siam-diff-seed0" in page and "failed" in page


def test_a_torn_bundle_stops_no_other_and_failed_samples_are_tried_again(
    compared: tuple[Path, ComparisonSummary], dataset: Path, workers: ClusterConfig, tmp_path: Path
) -> None:
    output = tmp_path / "squares"
    shutil.copytree(compared[0], output)
    before = [line for line in lines(output / "robustness.csv") if line["method"] != "fc-siam-diff"]
    (torn,) = output.glob("trainings/fc-siam-diff-seed0-*/bundle.safetensors")
    torn.write_bytes(torn.read_bytes()[:1000])
    checkpoint = torn.parent / "training/checkpoint.pt"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:1000])
    (path,) = (output / "ledger").glob("robustness-dasnet-seed0-*")
    ledger = Ledger(output / "ledger", path.stem)
    block = next(ledger.entries("done")).block
    ledger.append([Entry(block=block, state="failed", facts={"error": "scripted", "attempts": 3})])
    with pytest.raises(FailedMethodsError, match=r"1 failed[\s\S]*fc-siam-diff-seed0"):
        run_comparison(request(dataset, output, workers, seeds=1, robustness=True))
    rows = {line["row"]: line for line in lines(output / "tables.csv")}
    assert rows["dasnet"]["results"] == "1" and rows["fc-siam-diff"]["results"] == "0"
    assert lines(output / "robustness.csv") == before

    # with its checkpoint it is made again, the same
    checkpoint.write_bytes(whole)
    again = run_comparison(request(dataset, output, workers, seeds=1))
    assert again.trained == 1
    found, expected = (
        {row.name: row.results[0] for row in summary.tables["methods"]}["fc-siam-diff"]
        for summary in (again, compared[1])
    )
    assert found == expected


def test_what_cannot_be_shown_costs_no_table_and_no_other_curve(
    compared: tuple[Path, ComparisonSummary], dataset: Path, workers: ClusterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("scripted")

    output, _ = compared
    (output / "tables.md").unlink()
    monkeypatch.setattr("flows.comparison.report._called", full)
    monkeypatch.setattr("flows.comparison.robustness._of_network", full)
    with pytest.raises(
        FailedMethodsError, match=r"2 failed[\s\S]*robustness of fc-siam-diff: OutOfMemoryError: scripted"
    ):
        run_comparison(request(dataset, output, workers, seeds=1, robustness=True))
    assert "| fc-siam-diff | 1 |" in (output / "tables.md").read_text()
    page = (output / "report.html").read_text()
    assert "fc-siam-diff is not shown side by side: OutOfMemoryError: scripted" in page
    assert "Test samples with change, drawn before any method saw them" in page, "cva is shown"


def test_a_cost_that_cannot_be_measured_leaves_the_scores(
    compared: tuple[Path, ComparisonSummary], dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("scripted")

    monkeypatch.setattr("flows.comparison.run.cost_of", full)
    output, before = compared
    (row,) = run_comparison(request(dataset, output, methods=("dasnet",), seeds=1)).tables["methods"]
    assert row.cost is None and row.results == before.tables["methods"][0].results[:1]


def test_what_cannot_work_is_refused_before_work(workers: ClusterConfig, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", {"train": 1, "val": 1}, seed=3)
    asked = {"source": tmp_path / "in", "output": tmp_path / "out", "window": SIDE, "resolution": 1.0}
    run_preparation(PrepareRequest.model_validate({**asked, "cluster": workers}))
    with pytest.raises(InputError, match=r"no sample in split 'test' \(train 1, val 1, test 0\)"):
        run_comparison(request(tmp_path / "out", tmp_path / "c"))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("dasnet", "resnet")}, "no method is called 'resnet': there are dasnet, siam-conv"),
        ({"changes": {"head_channels": 16}}, r"fc-siam-diff: .* has no head_channels.*--set fc-siam-diff\.epochs=5"),
        ({"changes": {"seed": 4}}, "by --seeds"),
        ({"tables": ("losses",), "methods": ("cva",)}, r"the table methods, whose rows cva would be, is not asked for"),
        ({"recipe": "fc_ef"}, "recipe of another method than DASNet"),
        ({"changes": {"dasnet": {"rate": -1}}}, "rate"),
        ({"backbone_weights": {"mobilenet_v3": "nowhere.pth"}}, r"nowhere\.pth: no such file of weights"),
        ({"backbone_weights": {"resnet50": __file__}}, "for resnet50, but no network"),
        ({"backbone_weights": {"vgg16": __file__}}, "for vgg16, but no network of this comparison has that backbone"),
    ],
)
def test_requests_that_make_no_sense(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        request(tmp_path, tmp_path / "c", **changes)


def test_a_peers_encoder_has_weights_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"weights")
    asked: dict[str, Any] = {"methods": ("bit", "fc-ef"), "changes": {"epochs": 1}, "seeds": 1}
    plain, started = (
        request(tmp_path, tmp_path / "c", **asked, backbone_weights=weights)
        for weights in ({}, {"resnet18": tmp_path / "w.pth"})
    )
    one, other = ([training for v in r.variants for training in r.trainings(v)] for r in (plain, started))
    assert one[0].key != other[0].key and one[1].key == other[1].key
    assert other[0].request.backbone_weights == tmp_path / "w.pth" and other[1].request.backbone_weights is None
    with pytest.raises(ValidationError, match="for efficientnet_b4, but no network of this comparison has that"):
        request(tmp_path, tmp_path / "c", **asked, backbone_weights={"efficientnet_b4": tmp_path / "w.pth"})
    with pytest.raises(ValidationError, match="backbone 'resnet19' is none of"):
        request(tmp_path, tmp_path / "c", **asked, backbone_weights={"resnet19": tmp_path / "w.pth"})


def test_backbones_start_from_the_weights_that_are_given(dataset: Path, workers: ClusterConfig, tmp_path: Path) -> None:
    """The bundle is nearer to them than a random start would be; other methods are not trained again."""
    torch.manual_seed(1)  # the training is of seed 0, and would start elsewhere
    backbone = build_network(Architecture(backbone="mobilenet_v3", head_channels=16)).backbone
    torch.save(backbone.state_dict(), tmp_path / "ours.pth")
    asked: dict[str, Any] = {
        "seeds": 1,
        "changes": {**SETTINGS, "epochs": 12},
        "backbone_weights": {"mobilenet_v3": tmp_path / "ours.pth"},
    }
    with_weights = request(dataset, tmp_path / "c", **asked)
    without = request(dataset, tmp_path / "c", **{**asked, "backbone_weights": {}})
    keys = [[one.key for variant in r.variants for one in r.trainings(variant)] for r in (with_weights, without)]
    assert keys[0][0] != keys[1][0] and keys[0][1:] == keys[1][1:]
    run_comparison(request(dataset, tmp_path / "c", workers, **asked, methods=("dasnet",)))
    bundle = load_bundle(tmp_path / "c/trainings" / keys[0][0] / "bundle.safetensors")
    assert bundle.provenance["backbone_weights"]["file"] == "ours.pth"
    name, kernel = next(item for item in backbone.named_parameters() if item[1].ndim == 4)
    moved = (bundle.state[f"backbone.{name}"] - kernel).norm() / kernel.norm()
    assert moved < 0.5, "of two random starts it is 1.4"
    assert "but for those of mobilenet_v3, which start from ours.pth" in (tmp_path / "c/report.html").read_text()

    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "ours.pth")
    with pytest.raises(TrainingError, match=r"does not fit the encoder mobilenet_v3 of 3 bands"):
        run_comparison(request(dataset, tmp_path / "new", workers, **asked, methods=("dasnet",)))
    assert not (tmp_path / "new").exists()
    with pytest.raises(FailedMethodsError, match=r"1 failed[\s\S]*dasnet-seed0[\s\S]*does not fit the encoder"):
        run_comparison(request(dataset, tmp_path / "new", workers, **asked, methods=("dasnet", "cva")))
    assert "| cva | none |" in (tmp_path / "new/tables.md").read_text()


def test_tables_share_trainings(tmp_path: Path) -> None:
    """DASNet with both attentions, L2 and WDMC stands in each of these tables and is one training."""
    asked = CompareRequest(
        dataset=tmp_path,
        output=tmp_path / "c",
        methods=("dasnet", "siam-conv"),
        seeds=1,
        tables=("methods", "losses", "attention", "lambda", "decoder", "training", "margins"),
        changes={"dasnet": {"ema": 0.99}},
    )
    keys = [one.key for variant in asked.variants for one in asked.trainings(variant)]
    assert len(keys) == 2 + 7 + 4 + 3 + 6 + 5 + 9
    assert keys.count(asked.trainings(asked.variants[0])[0].key) == 7
    assert len(set(keys)) == 2 + 5 + 2 + 2 + 4 + 4 + 8  # DASNet with cosine stands in two tables


def test_rows_of_training_take_one_thing_away_and_leave_the_rest(tmp_path: Path) -> None:
    asked = CompareRequest(
        dataset=tmp_path,
        output=tmp_path / "c",
        seeds=1,
        tables=("training",),
        changes={"dasnet": {"augmentation": {"crop": 96}, "margin_changed": 2.0}},
    )
    recipes = {variant.name: asked.trainings(variant)[0].recipe for variant in asked.variants}
    assert {recipe.augmentation.crop for recipe in recipes.values()} == {96}
    assert {recipe.loss.margin_changed for recipe in recipes.values()} == {2.0}
    states = {
        name: (
            recipe.augmentation.photometric or recipe.augmentation.shift > 0,
            recipe.optimizer.ema > 0,
            recipe.sampling.balance > 0,
        )
        for name, recipe in recipes.items()
    }
    assert states == {
        "all three": (True, True, True),
        "without pseudo-changes": (False, True, True),
        "without averaged weights": (True, False, True),
        "without balanced samples": (True, True, False),
        "none": (False, False, False),
    }


def test_margins_stand_where_figure_7_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """m1 along x, m2 along y; a row without results stays empty."""
    drawn: dict[str, Any] = {}
    monkeypatch.setattr("flows.comparison.report.heat", lambda values, **axes: drawn.update(values=values, **axes))
    asked = CompareRequest(dataset=tmp_path, output=tmp_path / "c", seeds=1, tables=("margins",))
    rows = []
    for variant in asked.variants:
        m1, m2 = variant.changes["margin_unchanged"], variant.changes["margin_changed"]
        tp = round(1000 * m1 + 100 * m2)  # of the F1, m1 says the hundreds and m2 the tens
        result = Result(
            name=variant.name,
            seed=0,
            confusion=Confusion(tp=tp, fp=1000 - tp, fn=1000 - tp),
            highest_f1=1,
            validation_f1=1,
        )
        rows.append(Row(name=variant.name, results=() if (m1, m2) == (0.5, 2.2) else (result,)))
    margins_picture(asked, rows)
    assert drawn["x"] == [0.1, 0.3, 0.5] and drawn["y"] == [1.4, 1.8, 2.2]
    assert drawn["x_label"].startswith("m1") and drawn["y_label"].startswith("m2")
    expected = [[0.24, 0.44, 0.64], [0.28, 0.48, 0.68], [0.32, 0.52, np.nan]]
    np.testing.assert_allclose(drawn["values"], expected)


def test_spread_by_hand() -> None:
    assert spread([0.5, 0.7, 0.9]) == (pytest.approx(0.7), pytest.approx(0.2))
    assert spread([0.5, 0.7, 0.9])[1] == pytest.approx(statistics.stdev([0.5, 0.7, 0.9]))
    assert spread([0.5]) == (0.5, None)
    results = [
        Result(name=f"r{n}", seed=n, confusion=Confusion(tp=tp, fn=10 - tp, fp=0, tn=5), highest_f1=1, validation_f1=1)
        for n, tp in enumerate((10, 5))
    ]
    row = Row(name="m", results=results, failed=[("r2", "diverged")])
    # F1 = 2tp / (2tp + fn): 1 and 10/15; mean 5/6, deviation (1/3)/√2
    assert row.cells()[:2] == ["m", "2 of 3"]
    assert row.cells()[2:5] == ["0.750 ± 0.354", "1.000 ± 0.000", "0.833 ± 0.236"]


def test_operations_are_those_of_its_convolutions() -> None:
    """DSCN is convolutions alone: two operations a weight and place, for both dates."""
    architecture = PeerArchitecture(method="dscn", width=8)
    network, by_hand = build_network(architecture).eval(), 0

    def add(module: nn.Conv2d, _: Any, output: torch.Tensor) -> None:
        nonlocal by_hand
        by_hand += 2 * module.weight.numel() * output.shape[-1] * output.shape[-2]

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    network.features(torch.zeros(1, 3, 48, 48))
    assert counted(architecture, 48) == (sum(p.numel() for p in network.parameters()), 2 * by_hand)


def test_operations_of_attention_are_those_of_the_method_not_of_its_kernels() -> None:
    """Query and key are filled up with zeros for a kernel's sake; products with them are nobody's arithmetic."""
    channels, positions = 512, 12 * 12
    flops = {
        attention: counted(Architecture(backbone="mobilenet_v3", head_channels=channels, attention=attention), 96)[1]
        for attention in ("none", "spatial", "channel")
    }
    narrow = channels // 8
    projections = 2 * positions * channels * (2 * narrow + channels)
    spatial = 2 * positions**2 * (narrow + channels)
    branch_and_embedding = flops["channel"] - flops["none"] - 2 * (4 * positions * channels**2)
    assert flops["spatial"] - flops["none"] == 2 * (projections + spatial) + branch_and_embedding
    assert branch_and_embedding == 0


@pytest.mark.slow
def test_a_killed_command_goes_on(dasnet_process: Dasnet, dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    words = ["compare", str(dataset), "--output", str(output), "--methods", "fc-siam-diff,cva", "--seeds", "2"]
    for setting in ("epochs=3", "batch=4", "augmentation.crop=64", "fc-siam-diff.width=4", "fc-siam-diff.rate=0.01"):
        words += ["--set", setting]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0
    )
    deadline = time.monotonic() + 250
    while time.monotonic() < deadline and not any(
        path.read_bytes().count(b'"epoch", ') for path in output.rglob("history.jsonl")
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(3)  # the workers notice that their driver is gone
    ended = dasnet_process(*words)
    assert ended.code == 0, ended.err
    assert "2 now" in ended.out or "1 now, 1 kept" in ended.out
    again = dasnet_process(*words)
    assert again.code == 0 and "0 now, 2 kept" in again.out

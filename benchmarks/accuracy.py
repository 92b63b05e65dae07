"""The accuracy of DASNet on the published tasks: datasets, trainings of several seeds, scores; each stage by itself.

    python -m benchmarks.accuracy --stage prepare  --data DATA --work WORK [--tasks levir water synthetic]
    python -m benchmarks.accuracy --stage train    --work WORK --seeds 3 --at-once 9 [--recipe NAME --set NAME=VALUE …]
    python -m benchmarks.accuracy --stage evaluate --data DATA --work WORK [--bundles water=FILE …] [--split val]

DATA is the folder of levir-1m, levir and naip. Datasets lie in ``WORK/TASK/data``, trainings in
``WORK/TASK/trainings/seed0`` and so on. *train* runs them side by side (:mod:`benchmarks.training_queue`), on a GPU
where there is one. *evaluate* scores the bundles that it is given, or those of the trainings, on the CPU; of bundles
that were trained elsewhere it needs nothing but their file. Test parts are looked at once, at the end: until then
``--split val`` scores validation windows, and no mosaic.

What is scored of a task, all from totals of pixels: `levir`, test windows, and the twelve native scenes as one mosaic
that `detect` resamples; `water`, test windows that do not overlap, and the four pairs of wet years that follow each
other in the archive, in the test columns; `synthetic`, the four test scenes. A mosaic is scored as `detect` blends it
and window by window. "Highest F1" is that of the best threshold on the very pixels that are scored.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from benchmarks.accuracy_tasks import LabelledMosaic, before_prepare, prepare_commands, test_mosaics
from benchmarks.common import machine
from dasnet.evaluation import bootstrap, reliability
from dasnet.metrics import Confusion, ThresholdSweep
from flows.cluster.config import ClusterConfig
from flows.evaluation.directory import EvaluationDirectory
from flows.evaluation.mosaic import rule_of_label
from flows.evaluation.request import EvaluateRequest
from flows.evaluation.run import run_evaluation
from flows.run.directory import RunDirectory
from storage.datasets.label_options import LabelOptions
from storage.datasets.scenes import label_on_grid
from storage.stores.run_store import RunStore
from tiling.conventions import CHANGED, IGNORED, LEVELS, NODATA, UNCHANGED

TASKS = ("levir", "water", "synthetic")
_MOSAICS = {
    "levir": "native scenes, by detect",
    "water": "four wet pairs, test columns",
    "synthetic": "four test scenes",
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What one bundle reaches in one way of scoring.

    Attributes:
        what: which pixels.
        f1: at the frozen threshold; low, high: its 95 % interval by the bootstrap over scenes or samples.
        highest_f1: of any threshold on these pixels.
        calibration_error: expected, of the probability.
        tiles_f1: the same mosaic window by window; None where windows are all there is.
    """

    task: str
    bundle: str
    what: str
    f1: float
    precision: float
    recall: float
    low: float
    high: float
    highest_f1: float
    calibration_error: float
    tiles_f1: float | None = None


def prepare(task: str, data: Path, work: Path) -> None:
    """Make the dataset of a task by the commands that a user would type."""
    before_prepare(task, data, work)
    for words in prepare_commands(task, data, work):
        print(shlex.join(["python", "-m", *words]), flush=True)
        subprocess.run([sys.executable, "-m", *words], check=True)


def on_windows(task: str, bundle: str, name: str, work: Path, *, split: str, cluster: ClusterConfig) -> Measure:
    """Score a bundle on the windows of a split of its dataset."""
    place = work / task / "evaluations" / name / split
    request = EvaluateRequest.model_validate(
        {"bundle": bundle, "output": place, "dataset": work / task / "data", "split": split, "cluster": cluster}
    )
    score = run_evaluation(request).samples
    assert score is not None
    interval = score.intervals["f1"]
    return Measure(
        task=task,
        bundle=name,
        what=f"{split} windows",
        f1=interval.value,
        precision=score.confusion.precision,
        recall=score.confusion.recall,
        low=interval.low,
        high=interval.high,
        highest_f1=score.highest[1].f1,
        calibration_error=score.reliability.error,
    )


def on_mosaics(task: str, bundle: str, name: str, data: Path, work: Path, cluster: ClusterConfig) -> list[Measure]:
    """Score a bundle on the mosaics of a task: all together, and each by itself where there are several."""
    totals: list[tuple[str, Confusion, Confusion, ThresholdSweep]] = []
    for mosaic in test_mosaics(task, data, work, bundle):
        place = work / task / "evaluations" / name / mosaic.name.replace(" ", "-")
        detection = {
            "before": str(mosaic.before),
            "after": str(mosaic.after),
            "output": place / "run",
            "cluster": cluster,
            **mosaic.options,
        }
        request = EvaluateRequest.model_validate(
            {"bundle": bundle, "output": place, "label": mosaic.label, "mosaic": detection, "cluster": cluster}
            | _values(mosaic)
        )
        score = run_evaluation(request).mosaic
        assert score is not None
        totals.append((mosaic.name, score.mosaic, score.tiles, _levels(place, mosaic)))
    measures = [_measure(task, name, what, [(blended, tiles, sweep)]) for what, blended, tiles, sweep in totals]
    together = _measure(task, name, _MOSAICS[task], [parts for _, *parts in totals])
    return [together, *(measures if len(totals) > 1 else [])]


def _values(mosaic: LabelledMosaic) -> dict[str, tuple[float, ...] | None]:
    """What the values of a mosaic's label mean, where the label itself leaves it open: most of it not scored, say."""
    if not mosaic.is_partial:
        return {"changed": None, "unchanged": None, "ignored": None}
    return {"changed": (CHANGED,), "unchanged": (UNCHANGED,), "ignored": (IGNORED,)}


def _levels(place: Path, mosaic: LabelledMosaic) -> ThresholdSweep:
    """Stored probabilities of an evaluated mosaic against its label, one bin a level."""
    store = RunStore(RunDirectory(EvaluationDirectory(place).run).store)
    rule = rule_of_label(mosaic.label, LabelOptions.of(**_values(mosaic)))
    label = label_on_grid(str(mosaic.label), store.grid, rule)
    sweep = _empty_sweep()
    for y in range(0, store.height, 1024):
        rows, cols = slice(y, min(y + 1024, store.height)), slice(0, store.width)
        stored, truth = store.read_probability(rows=rows, cols=cols), label.read(rows=rows, cols=cols)
        counts = [
            np.bincount(stored[(truth == value) & (stored != NODATA)], minlength=LEVELS + 1)
            for value in (UNCHANGED, CHANGED)
        ]
        sweep.add_counts(unchanged=counts[0], changed=counts[1])
    return sweep


def _empty_sweep() -> ThresholdSweep:
    """A bin for each stored level, whose middle is its probability."""
    return ThresholdSweep(low=-0.5 / LEVELS, high=1 + 0.5 / LEVELS, bins=LEVELS + 1)


def _measure(task: str, name: str, what: str, parts: list[tuple[Confusion, Confusion, ThresholdSweep]]) -> Measure:
    """Mosaics together: the totals of their pixels."""
    blended = sum((one for one, _, _ in parts), Confusion())
    tiles = sum((one for _, one, _ in parts), Confusion())
    sweep = _empty_sweep()
    for _, _, one in parts:
        sweep.add_counts(unchanged=one.unchanged, changed=one.changed)
    interval = bootstrap([one for one, _, _ in parts])["f1"]
    return Measure(
        task=task,
        bundle=name,
        what=what,
        f1=blended.f1,
        precision=blended.precision,
        recall=blended.recall,
        low=interval.low,
        high=interval.high,
        highest_f1=sweep.best()[1].f1,
        calibration_error=reliability(sweep.centres.clip(0, 1), sweep).error,
        tiles_f1=tiles.f1,
    )


def table(measures: list[Measure]) -> str:
    """Markdown: a line for each way of scoring; of several bundles mean ± standard deviation, else with interval."""
    lines = ["| task | what | bundles | F1, frozen threshold | highest F1 | window by window | calibration error |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for task, what in dict.fromkeys((one.task, one.what) for one in measures):
        these = [one for one in measures if (one.task, one.what) == (task, what)]
        f1 = _spread([one.f1 for one in these])
        if len(these) == 1 and these[0].low < these[0].high:
            f1 += f" ({these[0].low:.3f} – {these[0].high:.3f})"
        tiles = [one.tiles_f1 for one in these if one.tiles_f1 is not None]
        names = ", ".join(one.bundle for one in these)
        highest, error = ([getattr(one, field) for one in these] for field in ("highest_f1", "calibration_error"))
        cells = [task, what, names, f1, _spread(highest), _spread(tiles) if tiles else "", _spread(error)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def trained_bundles(task: str, work: Path) -> list[tuple[str, str]]:
    """(name, path) of the bundles that *train* left."""
    paths = sorted((work / task / "trainings").glob("*/bundle.safetensors"))
    return [(path.parent.name, str(path)) for path in paths]


def _name(bundle: str) -> str:
    """What a bundle is called here: `dasnet train` gives all of its files one name, and each a directory."""
    path = Path(bundle)
    return path.resolve().parent.name if path.name == "bundle.safetensors" else path.stem


def evaluate(options: argparse.Namespace) -> None:
    """Score bundles, print the table, and keep every figure in ``WORK/accuracy.json``."""
    cluster = ClusterConfig(workers=options.workers)
    measures: list[Measure] = []
    for task in options.tasks:
        given = [value for of, value in options.bundles if of == task]
        bundles = [(_name(value), value) for value in given] or trained_bundles(task, options.work)
        if not bundles:
            print(f"{task}: no bundle given, and none in {options.work / task / 'trainings'}", file=sys.stderr)
        for name, bundle in bundles:
            made = []
            if task != "synthetic" or options.split != "test":
                made.append(on_windows(task, bundle, name, options.work, split=options.split, cluster=cluster))
            if options.split == "test":
                made += on_mosaics(task, bundle, name, options.data, options.work, cluster)
            for one in made:
                print(f"{task} {name}, {one.what}: F1 {one.f1:.4f}, highest {one.highest_f1:.4f}", flush=True)
            measures += made
            (options.work / "accuracy.json").write_text(json.dumps([asdict(one) for one in measures], indent=1))
    print(f"\n{table(measures)}\n\n{machine()}")


def train(options: argparse.Namespace) -> None:
    """Train all seeds of all tasks side by side."""
    from benchmarks.training_queue import run_queue

    jobs = [
        {
            "dataset": str(options.work / task / "data"),
            "output": str(options.work / task / "trainings" / f"seed{seed}"),
            "name": f"{task}-{seed}",
            "recipe": options.recipe,
            "set": [*options.set, f"seed={seed}"],
            "backbone_weights": options.backbone_weights,
        }
        for seed in range(options.seeds)
        for task in options.tasks
    ]
    run_queue(jobs, results=options.work / "trainings.jsonl", at_once=options.at_once)


def _of_task(text: str) -> tuple[str, str]:
    task, found, bundle = text.partition("=")
    if not found or task not in TASKS:
        raise argparse.ArgumentTypeError(f"{text!r} is not TASK=BUNDLE with a task of {', '.join(TASKS)}")
    return task, bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("prepare", "train", "evaluate"), required=True)
    parser.add_argument("--data", type=Path, help="folder of levir-1m, levir and naip")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--bundles", nargs="+", type=_of_task, default=[], metavar="TASK=BUNDLE")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--workers", type=int, default=1, help="of the cluster that scores")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=9, help="trainings")
    parser.add_argument("--recipe", default="cpu_small")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--backbone-weights")
    options = parser.parse_args()
    if options.data is None and (options.stage == "prepare" or (options.stage, options.split) == ("evaluate", "test")):
        parser.error("--data is missing: the folder of levir-1m, levir and naip")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.stage == "prepare":
        for task in options.tasks:
            prepare(task, options.data, options.work)
    elif options.stage == "train":
        train(options)
    else:
        evaluate(options)


if __name__ == "__main__":
    main()

"""The report of a training: curves, attention by epoch, calibration, samples, scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dasnet.prediction.bundle import Bundle
from dasnet.training.trained_bundle import TrainedBundle
from flows.evaluation.samples import PEER_HEADER, peer_rows, score_rows
from flows.figures.pictures import scales_picture
from flows.training.job import Outcome
from flows.training.watch import EPOCH_HEADER, epoch_row
from storage.pages.charts import lines, reliability_diagram
from storage.pages.page import Page, Section, write_page

_POINTS = 400


def read_history(path: Path) -> list[dict[str, Any]]:
    """What the first rank wrote: facts of steps and epochs, in order."""
    return [json.loads(line) for line in path.read_bytes().splitlines() if line]


def training_pictures(history: Sequence[dict[str, Any]], trained: TrainedBundle) -> list[tuple[str, bytes, str]]:
    """(name, PNG, caption) of the charts."""
    steps = [facts for facts in history if facts["kind"] == "step"]
    epochs = [facts for facts in history if facts["kind"] == "epoch"]
    number = [facts["epoch"] + 1 for facts in epochs]
    every = max(len(steps) // _POINTS, 1)
    per_epoch = max(len(steps) / max(len(epochs), 1), 1)

    def smooth(name: str) -> tuple[list[float], list[float]]:
        values = np.array([facts[name] for facts in steps])
        parts = [values[first : first + every].mean() for first in range(0, len(values), every)]
        return [facts["step"] / per_epoch for facts in steps[::every]], [float(part) for part in parts]

    parts = [name for name in steps[0] if name not in ("kind", "epoch", "step", "loss", "rate", "gradient")]
    curves = lines(
        {
            "Loss": {name: smooth(name) for name in ("loss", *(parts if len(parts) > 1 else ()))},
            "Validation": {name: (number, [facts[name] for facts in epochs]) for name in ("f1", "precision", "recall")},
            "Learning rate": {"rate": smooth("rate")},
        },
        x_label="epoch",
        y_labels=("loss", "score at the best threshold", "learning rate"),
    )
    pictures = [("curves", curves, "Loss and its parts, validation scores, learning rate")]
    if scales := scales_picture(history):
        pictures.append(("attention-scales", *scales))
    calibration = reliability_diagram(
        {
            f"half the distance, ECE {trained.before.error:.3f}": (trained.before.probability, trained.before.observed),
            f"calibrated, ECE {trained.after.error:.3f}": (trained.after.probability, trained.after.observed),
        }
    )
    pictures.append(("reliability", calibration, "Reliability on validation, before and after calibration"))
    return pictures


def write_training_report(
    outcome: Outcome, *, bundle: Bundle, history: Sequence[dict[str, Any]], pictures: Sequence[tuple[str, bytes, str]]
) -> None:
    """Write the page of a training whose finished bundle is `bundle`; pictures are (name, PNG, caption)."""
    job, score = outcome.job, outcome.test
    epochs = [facts for facts in history if facts["kind"] == "epoch"]
    best = max(epochs, key=lambda facts: (facts.get("prepared", True), facts["f1"]))
    cards = [
        ("validation F1", f"{best['f1']:.3f}", f"epoch {best['epoch'] + 1} of {len(epochs)}"),
        ("speed", f"{np.mean([facts['pairs_per_s'] for facts in epochs]):.1f}", "pairs a second"),
        ("device busy", f"{np.mean([facts['device_share'] for facts in epochs]):.0%}", "the rest waits for samples"),
    ]
    sections = []
    if score is not None:
        cards.insert(0, ("test F1", f"{score.confusion.f1:.3f}", "at the frozen threshold"))
        sections = [
            Section(heading="Test split", header=PEER_HEADER, rows=peer_rows(score, job.name)),
            Section(
                heading="Uncertainty",
                text=f"95 % intervals by the bootstrap over {score.images}.",
                header=("score", "value", "95 % interval"),
                rows=score_rows(score),
            ),
        ]
    sections += [Section(heading=caption, pictures=[(picture, caption)]) for _, picture, caption in pictures]
    if job.directory.samples.exists():
        samples = job.directory.samples.read_bytes()
        judged = "before, after, label, distance, judged: yellow = right, red = false alarm, blue = missed"
        sections.append(Section(heading="Validation samples after the last epoch", pictures=[(samples, judged)]))
    sections += [
        Section(heading="Epochs", header=EPOCH_HEADER, rows=[epoch_row(facts) for facts in epochs]),
        Section(
            heading="Recipe",
            header=("setting", "value"),
            rows=[[key, json.dumps(value)] for key, value in job.recipe.settings().items()],
        ),
        Section(heading="Model card", preformatted=bundle.card),
    ]
    dataset = f"dataset {job.store.path.parent.name}, SHA-256 {job.store.digest}"
    write_page(
        job.directory.report,
        Page(
            title=f"Training of {job.name}",
            subtitle=f"bundle SHA-256 {bundle.digest}; {dataset}",
            cards=cards,
            sections=sections,
        ),
    )

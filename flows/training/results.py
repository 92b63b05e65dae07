"""What comes of a training: its bundle with card, scores and provenance, its report."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from dasnet.prediction.bundle import Bundle, save_bundle
from dasnet.prediction.header import BundleHeader
from flows.evaluation.samples import PEER_HEADER, Score, peer_rows
from flows.figures.pictures import HEADINGS, figures_of
from flows.run.artifacts import Markdown, Picture
from flows.run.observer import current_observer
from flows.run.versions import versions
from flows.training.card import model_card
from flows.training.data import training_data
from flows.training.job import Outcome, TrainingJob
from flows.training.report import read_history, training_pictures, write_training_report
from storage.pages.page import markdown_table
from storage.places.publish import publish, write_json_atomically


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """What came of a training.

    Attributes:
        epochs: trained; `stopped`: why before the last, or empty.
        test: scores on the test split; None = the dataset has none.
    """

    bundle: Path
    report: Path
    epochs: int
    stopped: str
    validation_f1: float
    test: Score | None

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        lines = [("epochs", f"{self.epochs}{f', stopped: {self.stopped}' if self.stopped else ''}")]
        lines.append(("validation", f"F1 {self.validation_f1:.3f}"))
        if self.test is not None:
            f1 = self.test.intervals["f1"]
            lines.append(
                (
                    "test",
                    f"F1 {f1.value:.3f} ({f1.low:.3f} – {f1.high:.3f}) at the frozen threshold; "
                    f"{self.test.highest[1].f1:.3f} at the best one; change vectors {self.test.change_vectors.f1:.3f}",
                )
            )
        return [*lines, ("bundle", str(self.bundle)), ("report", str(self.report))]


def finished(outcome: Outcome) -> TrainingSummary:
    """Write card, metrics and provenance into the bundle; write the report."""
    job, trained, test = outcome.job, outcome.trained, outcome.test
    directory = job.directory
    provenance = {
        "made": date.today().isoformat(),
        "recipe": job.recipe.settings(),
        "dataset": {"name": job.store.path.parent.name, "sha256": job.store.digest},
        "class_frequency": training_data(job.store, job.recipe, job.request.header).frequency.to_dict(),
        "backbone_weights": None if job.start is None else job.start.to_dict(),
        **({} if job.request.header is None else {"from_bundle": origin_of(job.request.header)}),
        "epochs": outcome.progress.epoch,
        "stopped": outcome.progress.stopped,
        "versions": versions(),
    }
    metrics: dict[str, Any] = {
        "validation": trained.validation.scores(),
        "validation_calibration_error": trained.after.error,
        "validation_calibration_error_uncalibrated": trained.before.error,
    }
    if test is not None:
        metrics["test"] = test.to_dict()
    card = model_card(outcome)
    bundle = save_bundle(directory.bundle, replace(trained.bundle, provenance=provenance, metrics=metrics, card=card))
    with publish(directory.card) as draft:
        draft.write_text(card)
    history = read_history(directory.steps)
    with publish(directory.history) as draft:
        draft.write_text(json.dumps(history))
    pictures = [*training_pictures(history, trained), *_figures(job, bundle)]
    write_training_report(outcome, bundle=bundle, history=history, pictures=pictures)
    write_json_atomically(directory.metrics, metrics)
    for key, picture, caption in pictures:
        current_observer().show(Picture(key, picture, caption))
    if test is not None:
        scores = markdown_table(PEER_HEADER, peer_rows(test, f"**{job.name}**"))
        current_observer().show(Markdown("test", scores, "Scores on the test split"))
    current_observer().show(Markdown("model-card", card, "Model card"))
    directory.update(state="finished")
    return TrainingSummary(
        bundle=directory.bundle,
        report=directory.report,
        epochs=outcome.progress.epoch,
        stopped=outcome.progress.stopped,
        validation_f1=trained.validation.f1,
        test=test,
    )


def origin_of(header: BundleHeader) -> dict[str, Any]:
    """The bundle that a training went on from, as JSON: what it is, what it was trained on and what it started from."""
    known = {name: header.provenance.get(name) for name in ("dataset", "backbone_weights", "from_bundle")}
    file = "" if header.path is None else header.path.name
    return {"file": file, "sha256": header.digest, **{name: value for name, value in known.items() if value}}


def _figures(job: TrainingJob, bundle: Bundle) -> list[tuple[str, bytes, str]]:
    """(name, PNG, caption) of what the network sees on samples it was not trained on; nothing if none has a change."""
    if not job.request.figures:
        return []
    store = job.store
    changed = store.changed("test") if store.lacks("test") is None else store.changed("val")
    if not len(changed):
        return []
    reporter = current_observer()
    reporter.begin("figures", len(HEADINGS), unit="figures")
    made, left_out = figures_of(bundle, store, changed)
    reporter.end(f"{len(made)} figures{''.join(f'; left out: {reason}' for reason in left_out)}")
    return [(name, picture, f"{HEADINGS[name]}. {caption}") for name, (picture, caption) in made.items()]

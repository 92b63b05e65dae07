"""What a person should see of an evaluation: figures with their uncertainty, curves, the worst and the best cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dasnet.prediction.bundle import Bundle
from dasnet.prediction.predictor import DasnetPredictor
from flows.evaluation.samples import PEER_HEADER, Score, peer_rows, score_rows
from storage.datasets.store import DatasetStore
from storage.pages.charts import curves_of_thresholds, reliability_diagram
from storage.pages.contact_sheet import Panel, contact_sheet
from storage.pages.page import Page, Section, write_page

_CASES = 8


def write_evaluation(
    path: Path,
    *,
    bundle: Bundle,
    name: str,
    store: DatasetStore,
    split: str,
    score: Score,
    extra: Sequence[Section] = (),
) -> list[tuple[str, bytes]]:
    """Write the page; returns its pictures (name, PNG) for artifacts."""
    cut = bundle.cut
    worst, best = _cases(score)
    pictures = {
        "worst": _sheet(bundle, store, worst, score),
        "best": _sheet(bundle, store, best, score),
        "curves": curves_of_thresholds(
            false_alarm_rate=score.curves.false_alarm_rate,
            recall=score.curves.recall,
            precision=score.curves.precision,
            chosen=(
                score.confusion.fp / max(score.confusion.fp + score.confusion.tn, 1),
                score.confusion.recall,
                score.confusion.precision,
            ),
            roc_area=score.curves.roc_area,
            average_precision=score.curves.average_precision,
        ),
        "reliability": reliability_diagram(
            {f"ECE {score.reliability.error:.3f}": (score.reliability.probability, score.reliability.observed)}
        ),
    }
    judged = "before, after, label, probability, judged: yellow = right, red = false alarm, blue = missed"
    sections = [
        Section(
            heading="Scores",
            text=f"From totals of pixels over the split; intervals by the bootstrap over {score.images}. The highest "
            f"F1 that any threshold reaches on this split is {score.highest[1].f1:.4f}, at distance "
            f"{score.highest[0]:.3f}; the frozen threshold lies at {cut:.3f}.",
            header=("score", "value", "95 % interval"),
            rows=score_rows(score),
        ),
        Section(heading="Beside what needs no training", header=PEER_HEADER, rows=peer_rows(score, name)),
        *extra,
        Section(heading="Thresholds", pictures=[(pictures["curves"], "ROC; precision over recall")]),
        Section(
            heading="Calibration", pictures=[(pictures["reliability"], "Observed share of change over probability")]
        ),
        Section(heading="Worst samples, by wrong pixels", pictures=[(pictures["worst"], judged)]),
        Section(heading="Best samples, by F1", pictures=[(pictures["best"], judged)]),
    ]
    figures = score.confusion
    write_page(
        path,
        Page(
            title=f"{name} on {store.path.parent.name}, {split}",
            subtitle=f"bundle SHA-256 {bundle.digest}; dataset SHA-256 {store.digest}",
            cards=[
                ("F1", f"{figures.f1:.3f}", "at the frozen threshold"),
                ("precision", f"{figures.precision:.3f}", "of what is called changed"),
                ("recall", f"{figures.recall:.3f}", "of what is changed"),
                ("accuracy", f"{figures.accuracy:.3f}", "of all pixels"),
                ("change vectors", f"{score.change_vectors.f1:.3f}", "F1 with Otsu's threshold"),
            ],
            sections=sections,
        ),
    )
    return list(pictures.items())


def _cases(score: Score) -> tuple[list[int], list[int]]:
    """Places in the split of the samples with most wrong pixels, and of those with the highest F1."""
    wrong = np.array([c.fp + c.fn for c in score.per_sample])
    f1 = np.array([c.f1 if c.tp + c.fn else -1.0 for c in score.per_sample])
    return np.argsort(-wrong, kind="stable")[:_CASES].tolist(), np.argsort(-f1, kind="stable")[:_CASES].tolist()


def _sheet(bundle: Bundle, store: DatasetStore, places: Sequence[int], score: Score) -> bytes:
    indices = [int(score.indices[place]) for place in places]
    samples = store.read(indices)
    predictor = DasnetPredictor(bundle, device="cpu", precision="float32")
    distance = predictor.distances(np.stack([samples.before, samples.after], axis=1), samples.valid)[:, 0]
    probability: Any = 1 / (1 + np.exp(-(bundle.calibration.slope * distance + bundle.calibration.intercept)))
    return contact_sheet(
        [
            Panel(
                before=samples.before[n],
                after=samples.after[n],
                valid=samples.valid[n],
                label=samples.label[n],
                probability=probability[n],
                threshold=bundle.threshold,
                caption=f"{store.sources[index]}, row {store.positions()[index][0]}, column "
                f"{store.positions()[index][1]}: F1 {score.per_sample[place].f1:.2f}, "
                f"{score.per_sample[place].fp + score.per_sample[place].fn:,} px wrong",
            )
            for n, (place, index) in enumerate(zip(places, indices, strict=True))
        ],
        bands=store.bands,
        columns=1,
    )

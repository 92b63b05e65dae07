"""evaluate: a bundle on labelled samples, and on a whole labelled mosaic through the path of detect."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dasnet.prediction.bundle import load_bundle
from flows.cluster.layout import planned_layout
from flows.cluster.stage import when_needed
from flows.dataset.fitting import fitted
from flows.detect.run import planned_grid, run_detection
from flows.evaluation.directory import EvaluationDirectory
from flows.evaluation.mosaic import MosaicScore, rule_of_label, score_mosaic
from flows.evaluation.report import write_evaluation
from flows.evaluation.request import EvaluateRequest
from flows.evaluation.samples import PEER_HEADER, Score, Scoring, peer_rows, score
from flows.inference.model import bundle_model
from flows.inference.untrained_model import require_a_bundle
from flows.run.artifacts import Markdown, Picture
from flows.run.observer import Part, current_observer
from flows.run.versions import versions
from storage.datasets.scenes import label_on_grid
from storage.datasets.store import DatasetStore, open_dataset
from storage.errors import InputError
from storage.imagery.identity.digests import digest_files
from storage.pages.page import Page, Section, markdown_table, write_page
from storage.places.publish import write_json_atomically


@dataclass(frozen=True, kw_only=True)
class EvaluationSummary:
    """What came of an evaluation; a part that was not asked for is None."""

    report: Path
    samples: Score | None
    mosaic: MosaicScore | None

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        lines = []
        if self.mosaic is not None and self.mosaic.rule is not None:
            lines.append(("labels", str(self.mosaic.rule)))
        if self.samples is not None:
            for name, interval in self.samples.intervals.items():
                lines.append((name, f"{interval.value:.4f} ({interval.low:.4f} – {interval.high:.4f})"))
            lines.append(("highest F1", f"{self.samples.highest[1].f1:.4f} over all thresholds, chosen on this split"))
            lines.append(("peers", f"F1 {self.samples.change_vectors.f1:.4f} change vectors, 0 no change"))
        if self.mosaic is not None:
            lines.append(("mosaic", f"F1 {self.mosaic.mosaic.f1:.4f} blended, {self.mosaic.tiles.f1:.4f} tile by tile"))
        return [*lines, ("report", str(self.report))]


def run_evaluation(request: EvaluateRequest) -> EvaluationSummary:
    """A bundle and labelled imagery in; scores with their uncertainty, curves and the worst cases out.

    The threshold is the bundle's own, frozen on its validation data; nothing is chosen on what is scored here.
    """
    planned_layout(request.cluster)
    require_a_bundle(request.bundle, flow="evaluate")
    # a label that cannot be read is refused before anything is computed
    rule = None if request.label is None else rule_of_label(request.label, request.label_options)
    for text in () if rule is None else rule.warnings:
        current_observer().warn(text)
    bundle = load_bundle(request.bundle)
    store = None if request.dataset is None else open_dataset(request.dataset)
    windows = ([] if store is None else [store.window]) + ([] if request.label is None else [bundle.window])
    model, on_gpu = bundle_model(request.bundle), request.cluster.kind == "cuda"
    for window in windows:
        if why := model.refusal_of_precision(request.precision, window=window, on_gpu=on_gpu):
            raise InputError(f"bundle {request.bundle}: {why}")
    if store is not None:
        store = fitted(store, bundle, name=request.bundle)
        store.indices(request.split)
    directory = EvaluationDirectory(request.output)
    detection = request.detection(directory.run)
    if detection is not None and request.label is not None:
        label_on_grid(str(request.label), planned_grid(detection), rule)  # a label elsewhere costs no night
    name = Path(request.bundle).stem if Path(request.bundle).exists() else request.bundle
    samples: Score | None = None
    mosaic: MosaicScore | None = None
    with directory.locked(), ExitStack() as until_end:
        directory.adopt(_identity(request, bundle.digest, store), versions=versions())
        if detection is not None:
            part = Part(kind="detect-changes", title=directory.run.name, parameters={"request": detection})
            current_observer().part(part, lambda: run_detection(detection))
        scoring = Scoring(
            bundle=request.bundle,
            directory=directory,
            cluster=when_needed(request.cluster, until_end),
            config=request.cluster,
            precision=request.precision,
        )
        if store is not None:
            samples = score(scoring, store, request.split)
        if request.label is not None:
            mosaic = score_mosaic(scoring, directory.run, request.label, rule)
        until_end.close()
        extra = [] if mosaic is None else [_mosaic_section(mosaic)]
        if store is not None and samples is not None:
            pictures = write_evaluation(
                directory.report, bundle=bundle, name=name, store=store, split=request.split, score=samples, extra=extra
            )
            for key, picture in pictures:
                current_observer().show(Picture(key, picture, f"{key}, {request.split} split"))
            scores = markdown_table(PEER_HEADER, peer_rows(samples, f"**{name}**"))
            current_observer().show(Markdown("scores", scores, "Scores"))
        else:
            digest = f"bundle SHA-256 {bundle.digest}"
            write_page(directory.report, Page(title=f"{name} on a mosaic", subtitle=digest, sections=extra))
        write_json_atomically(
            directory.scores,
            {
                "bundle": {"name": name, "sha256": bundle.digest},
                "samples": None if samples is None else samples.to_dict(),
                "mosaic": None if mosaic is None else mosaic.to_dict(),
            },
        )
        directory.update(state="finished")
    return EvaluationSummary(report=directory.report, samples=samples, mosaic=mosaic)


def _identity(request: EvaluateRequest, bundle: str, store: DatasetStore | None) -> dict[str, Any]:
    detection = request.detection(request.output)
    return {
        "kind": "evaluation",
        "bundle": bundle,
        "dataset": None if store is None else store.digest,
        **({} if store is None or store.chosen is None else {"bands": list(store.chosen)}),
        "split": request.split,
        "precision": request.precision,
        "label": None if request.label is None else list(digest_files([str(request.label)]).values()),
        **({"labels": named} if (named := request.label_options.to_dict()) else {}),
        # how often a block is tried again changes no score, nor what tells its dates
        "mosaic": None
        if detection is None
        else detection.model_dump(mode="json", exclude={"cluster", "output", "date_pattern"})
        | {"retries": 2, "retry_failed": False},
    }


def _mosaic_section(score: MosaicScore) -> Section:
    return Section(
        heading="The whole mosaic",
        text="The same pixels twice: with overlapping windows blended, as detect delivers them, and window by window, "
        f"as networks are usually scored. {score.unlabelled:.1%} of the pixels have no label or no data. "
        f"Labels: {score.rule or 'polygons, changed inside'}.",
        header=("", "F1", "precision", "recall", "accuracy"),
        rows=[
            [what, f"{c.f1:.4f}", f"{c.precision:.4f}", f"{c.recall:.4f}", f"{c.accuracy:.4f}"]
            for what, c in (("mosaic", score.mosaic), ("tiles", score.tiles))
        ],
    )

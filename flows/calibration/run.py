"""calibrate: a bundle's distances on labelled samples, and the calibration and threshold that fit them best."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dasnet.baselines.embeddings import EMBEDDINGS
from dasnet.errors import TrainingError
from dasnet.evaluation import calibrated, reliability
from dasnet.metrics import Confusion, ThresholdSweep
from dasnet.prediction.bundle import Bundle, is_half, load_bundle, save_bundle
from dasnet.prediction.calibration import Calibration
from dasnet.prediction.header import require_place
from dasnet.prediction.quantised.description import INTEGERS
from dasnet.training.trained_bundle import best_stored
from flows.calibration.card import Fit, calibrated_card
from flows.calibration.directory import CalibrationDirectory, draft_of
from flows.calibration.embeddings import uncalibrated
from flows.calibration.request import CalibrateRequest
from flows.cluster.layout import planned_layout
from flows.cluster.stage import when_needed
from flows.dataset.fitting import fitted
from flows.evaluation.samples import Scoring, swept
from flows.inference.model import bundle_model
from flows.inference.untrained_model import require_a_bundle
from flows.run.artifacts import Picture
from flows.run.observer import current_observer
from flows.run.versions import versions
from storage.datasets.store import DatasetStore, open_dataset
from storage.errors import InputError
from storage.pages.charts import reliability_diagram
from storage.pages.page import Page, Section, write_page


@dataclass(frozen=True, kw_only=True)
class CalibrationSummary:
    """The bundle that was written, and what calibration and threshold were and have become."""

    bundle: Path
    fit: Fit
    report: Path

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        fit = self.fit
        return [
            ("threshold", f"{fit.threshold:.3f} on the probability, before {fit.threshold_before:.3f}"),
            ("F1", f"{fit.after.f1:.4f} on these samples, before {fit.before.f1:.4f}"),
            ("calibration", f"expected error {fit.reliability.error:.4f}, before {fit.reliability_before.error:.4f}"),
            ("bundle", str(self.bundle)),
            ("report", str(self.report)),
        ]


def run_calibration(request: CalibrateRequest) -> CalibrationSummary:
    """A bundle and labelled samples in; the same bundle with a calibration and a threshold fitted to them out.

    Raises:
        BundleError: no such bundle, or an output that can be no file.
        InputError: samples that do not fit the bundle, or without changed or unchanged pixels.
        TrainingError: a larger distance does not mean a more probable change in these samples.
        FailedBlocksError: samples that could not be read.
    """
    planned_layout(request.cluster)
    require_place(request.output)
    with ExitStack() as until_written:
        if request.bundle in EMBEDDINGS:
            draft = draft_of(request.output)
            until_written.callback(draft.unlink, missing_ok=True)
            uncalibrated(request.bundle, open_dataset(request.dataset), request.split, draft)
            return _calibrated(request, str(draft))
        require_a_bundle(request.bundle, flow="calibrate")
        return _calibrated(request, request.bundle)


def _calibrated(request: CalibrateRequest, source: str) -> CalibrationSummary:
    """`source`: name or path of the bundle that is calibrated."""
    model = bundle_model(source)
    for note in model.notes_of_origin:
        current_observer().warn(note)
    bundle = load_bundle(source)
    on_gpu = request.cluster.kind == "cuda"
    if why := model.refusal_of_precision(request.precision, window=bundle.window, on_gpu=on_gpu):
        raise InputError(f"bundle {request.bundle}: {why}")
    if request.precision == INTEGERS:
        raise InputError(
            f"bundle {request.bundle} cannot be calibrated in int8: calibrate it in float32, and quantise the result"
        )
    if bundle.quantised is not None:
        bundle = replace(bundle, quantised=None, quantised_graph=None)
        current_observer().warn(
            f"{request.output} will have no quantised graph: that of {request.bundle} was held against its former "
            "threshold; dasnet quantise makes another"
        )
    store = fitted(open_dataset(request.dataset), bundle, name=request.bundle)
    samples = len(store.indices(request.split))
    if lacking := store.lacks(request.split):
        raise InputError(
            f"{store.path}, split {request.split}: not one {lacking} pixel in {samples:,} samples; a calibration needs "
            "changed and unchanged ones"
        )
    overlap = bundle.window_overlap if request.overlap is None else request.overlap
    if overlap is not None and overlap >= bundle.window:
        raise InputError(f"--overlap {overlap} px must be less than the window of {request.bundle}, {bundle.window} px")
    if request.split == "test":
        current_observer().warn(
            f"calibration and threshold will be fitted to the test split of {store.path}: scores of this bundle on it "
            "say nothing of other samples"
        )
    directory = CalibrationDirectory(request.directory)
    with directory.locked(), ExitStack() as until_end:
        identity = {
            "kind": "calibration",
            "bundle": bundle.digest,
            "dataset": store.digest,
            **({} if store.chosen is None else {"bands": list(store.chosen)}),
            "split": request.split,
            "precision": request.precision,
            **({} if request.overlap is None else {"overlap": request.overlap}),
        }
        directory.adopt(identity, versions=versions())
        scoring = Scoring(
            bundle=source,
            directory=directory,
            cluster=when_needed(request.cluster, until_end),
            config=request.cluster,
            precision=request.precision,
        )
        sweep = swept(scoring, store, request.split)
        until_end.close()
        new, fit = refitted(replace(bundle, window_overlap=overlap), sweep, store, request.split, samples=samples)
        assert bundle.path is not None
        written = save_bundle(request.output, new, half=is_half(bundle.path))
        _write_report(directory, request, written, fit, store)
        directory.update(state="finished")
    return CalibrationSummary(bundle=request.output, fit=fit, report=directory.report)


def refitted(
    bundle: Bundle, sweep: ThresholdSweep, store: DatasetStore, split: str, *, samples: int
) -> tuple[Bundle, Fit]:
    """The bundle with calibration and threshold by the distances of a split, and how both fit it.

    Raises:
        TrainingError: a larger distance does not mean a more probable change.
    """
    try:
        calibration = Calibration.fit(sweep.centres, changed=sweep.changed, unchanged=sweep.unchanged)
    except ValueError as error:
        raise TrainingError(
            f"on split {split} of {store.path} the bundle's distances say nothing about change (highest F1 "
            f"{sweep.best()[1].f1:.3f}): {error}. Look at the bands, at their normalisation, at the order of both "
            "dates and at which channel means changed"
        ) from error
    threshold, chosen = best_stored(calibration, sweep)
    fit = Fit(
        threshold_before=bundle.threshold,
        threshold=threshold,
        before=_at_distance(sweep, bundle.cut),
        after=chosen,
        reliability_before=reliability(calibrated(bundle.calibration, sweep), sweep),
        reliability=reliability(calibrated(calibration, sweep), sweep),
        samples=samples,
    )
    facts = {
        "dataset_sha256": store.digest,
        "split": split,
        "samples": samples,
        "bundle_sha256": bundle.digest,
        "f1": fit.after.f1,
        "f1_before": fit.before.f1,
        "calibration_error": fit.reliability.error,
        "calibration_error_before": fit.reliability_before.error,
    }
    new = replace(
        bundle,
        threshold=threshold,
        calibration=calibration,
        provenance={**bundle.provenance, "calibrated": True},
        metrics={**bundle.metrics, "calibration": facts},
        card=calibrated_card(bundle.card, fit, store, split),
    )
    return new, fit


def _at_distance(sweep: ThresholdSweep, cut: float) -> Confusion:
    """Scores where a pixel is called changed from a distance on; to a bin of the sweep."""
    index = int(np.searchsorted(sweep.thresholds, cut))
    if index < len(sweep.thresholds):
        return sweep.at(index)
    return Confusion(fn=int(sweep.changed.sum()), tn=int(sweep.unchanged.sum()))


def _write_report(
    directory: CalibrationDirectory, request: CalibrateRequest, bundle: Bundle, fit: Fit, store: DatasetStore
) -> None:
    picture = reliability_diagram(
        {
            f"{word}, ECE {each.error:.3f}": (each.probability, each.observed)
            for word, each in (("before", fit.reliability_before), ("calibrated", fit.reliability))
        }
    )
    caption = f"Observed share of change over probability, {request.split} split"
    current_observer().show(Picture("reliability", picture, caption))
    rows = [
        [when, f"{threshold:.3f}", f"{c.f1:.4f}", f"{c.precision:.4f}", f"{c.recall:.4f}", f"{error:.4f}"]
        for when, threshold, c, error in (
            ("before", fit.threshold_before, fit.before, fit.reliability_before.error),
            ("calibrated", fit.threshold, fit.after, fit.reliability.error),
        )
    ]
    write_page(
        directory.report,
        Page(
            title=f"{request.output.stem}, calibrated on {store.path.parent.name}, {request.split}",
            subtitle=f"bundle SHA-256 {bundle.digest}; dataset SHA-256 {store.digest}",
            sections=[
                Section(
                    heading="Before and after",
                    text="On the samples that calibration and threshold were fitted to; what the bundle is worth is "
                    "told by others: `dasnet evaluate`.",
                    header=("", "threshold", "F1", "precision", "recall", "calibration error"),
                    rows=rows,
                ),
                Section(heading="Reliability", pictures=[(picture, caption)]),
                Section(heading="Model card", preformatted=bundle.card),
            ],
        ),
    )

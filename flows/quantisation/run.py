"""quantise: a bundle's network as a graph of integers, held against the network itself before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from dasnet.errors import BundleError
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.networks.precomputed import PrecomputedArchitecture
from dasnet.prediction.bundle import Bundle, is_half, load_bundle, save_bundle
from dasnet.prediction.header import require_place
from dasnet.prediction.quantised.description import QuantisedDescription, require_quantiser
from dasnet.prediction.quantised.quantising import network_inputs, quantised_graph
from flows.cluster.layout import planned_layout
from flows.cluster.stage import when_needed
from flows.dataset.fitting import fitted
from flows.evaluation.samples import Scoring, at_frozen_threshold
from flows.inference.model import bundle_model
from flows.inference.untrained_model import require_a_bundle
from flows.quantisation.card import ALLOWED_LOSS, Loss, facts_of, quantised_card, speed_words
from flows.quantisation.directory import QuantisationDirectory, draft_of
from flows.quantisation.request import QuantiseRequest
from flows.quantisation.speed import milliseconds_by_precision
from flows.run.artifacts import Markdown
from flows.run.observer import current_observer
from flows.run.versions import versions
from storage.datasets.store import DatasetStore, few_of, open_dataset
from storage.errors import InputError
from storage.pages.page import Page, Section, markdown_table, write_page
from tiling.conventions import Split

_HEADER = ("split", "samples", "F1, float32", "F1, int8")
_READ_AT_A_TIME = 16


@dataclass(frozen=True, kw_only=True)
class QuantisationSummary:
    """The bundle that was written, what its integers lose, and how fast they are."""

    bundle: Path
    losses: tuple[Loss, ...]
    description: QuantisedDescription
    report: Path

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        return [
            *((loss.split, f"{loss.words}, {loss.samples:,} samples") for loss in self.losses),
            ("one date", f"{speed_words(self.description.milliseconds)} on one core of this machine"),
            ("bundle", str(self.bundle)),
            ("report", str(self.report)),
        ]


def run_quantisation(request: QuantiseRequest) -> QuantisationSummary:
    """A bundle and a dataset in; the same bundle with a graph of integers for CPUs out.

    Raises:
        BundleError: no such bundle, one whose network cannot be quantised, an output that can be no file, OpenVINO or
            NNCF is not installed, or F1 at the frozen threshold is more than 0.005 lower in integers.
        InputError: samples that do not fit the bundle, or a split without changed or unchanged pixels.
        FailedBlocksError: samples that could not be read.
    """
    planned_layout(request.cluster)
    require_place(request.output)
    require_a_bundle(request.bundle, flow="quantise")
    require_quantiser(f"bundle {request.bundle}")
    for note in bundle_model(request.bundle).notes_of_origin:
        current_observer().warn(note)
    bundle = _without_graph(request.bundle)
    store = fitted(open_dataset(request.dataset), bundle, name=request.bundle)
    splits = _scored_splits(store)
    chosen = few_of(store.indices("train"), request.samples)
    directory = QuantisationDirectory(request.directory)
    with directory.locked(), ExitStack() as until_end:
        identity = {
            "kind": "quantisation",
            "bundle": bundle.digest,
            "dataset": store.digest,
            **({} if store.chosen is None else {"bands": list(store.chosen)}),
            "samples": request.samples,
        }
        directory.adopt(identity, versions=versions())
        draft = draft_of(request.output)
        until_end.callback(draft.unlink, missing_ok=True)
        quantised = _quantised(bundle, store, chosen)
        save_bundle(draft, quantised, half=_is_half(bundle))
        clusters = until_end.enter_context(ExitStack())
        exact = Scoring(
            bundle=request.bundle,
            directory=directory,
            cluster=when_needed(request.cluster, clusters),
            config=request.cluster,
            precision="float32",
            suffix="float32",
        )
        assert quantised.quantised is not None
        integers = replace(exact, bundle=str(draft), precision="int8", suffix=f"int8 {quantised.quantised.sha256[:12]}")
        losses = tuple(
            Loss(
                split=split,
                samples=len(store.indices(split)),
                float32=at_frozen_threshold(exact, store, split),
                integers=at_frozen_threshold(integers, store, split),
            )
            for split in splits
        )
        clusters.close()
        _require_little_loss(request, losses)
        written = _written(request, quantised, losses)
        _write_report(directory, request, written, losses, store)
        directory.update(state="finished")
    assert written.quantised is not None
    return QuantisationSummary(
        bundle=request.output, losses=losses, description=written.quantised, report=directory.report
    )


def _without_graph(name: str) -> Bundle:
    """The bundle without a graph that it may have already; refuses one that has no layers of ours."""
    bundle = load_bundle(name)
    if isinstance(bundle.architecture, ImportedArchitecture):
        raise BundleError(
            f"bundle {name} is an imported graph, which keeps its own arithmetic: quantise it where it was made"
        )
    if isinstance(bundle.architecture, PrecomputedArchitecture):
        raise BundleError(f"bundle {name} compares embeddings that are computed already: there is nothing to quantise")
    return replace(bundle, quantised=None, quantised_graph=None)


def _scored_splits(store: DatasetStore) -> list[Split]:
    """Validation, and test where the dataset has one; raises InputError where nothing could be scored."""
    present = set(np.unique(store.splits).tolist())
    splits: list[Split] = []
    for number, split in enumerate(get_args(Split)):
        if split == "train" or (split == "test" and number not in present):
            continue
        if lacking := store.lacks(split):
            raise InputError(
                f"{store.path}, split {split}: not one {lacking} pixel, so that nobody could say what integers lose"
            )
        splits.append(split)
    return splits


def _quantised(bundle: Bundle, store: DatasetStore, chosen: list[int]) -> Bundle:
    """The bundle with its graph, whose description says how fast it is on this machine."""
    observer = current_observer()
    observer.begin("quantise", len(chosen), unit="samples")
    graph = quantised_graph(bundle, list(_inputs(bundle, store, chosen)), dataset_sha256=store.digest)
    quantised = replace(bundle, quantised=graph.description, quantised_graph=graph)
    milliseconds = milliseconds_by_precision(quantised, side=graph.description.side)
    graph = replace(graph, description=replace(graph.description, milliseconds=milliseconds))
    observer.advance(len(chosen))
    observer.end(f"ranges of {graph.description.images:,} images; one date {speed_words(milliseconds)}")
    return replace(bundle, quantised=graph.description, quantised_graph=graph)


def _inputs(bundle: Bundle, store: DatasetStore, chosen: list[int]) -> Iterator[NDArray[np.float32]]:
    """What the network is given of both dates of the chosen samples, (1, C, s, s) each."""
    for first in range(0, len(chosen), _READ_AT_A_TIME):
        samples = store.read(chosen[first : first + _READ_AT_A_TIME])
        for date, images in enumerate((samples.before, samples.after)):
            yield from network_inputs(bundle, images, samples.valid[:, date])


def _require_little_loss(request: QuantiseRequest, losses: tuple[Loss, ...]) -> None:
    if lost := [loss for loss in losses if not loss.is_allowed]:
        raise BundleError(
            f"{request.output} is not written: integers lose more than {ALLOWED_LOSS:g} of F1 at the frozen threshold: "
            + "; ".join(f"{loss.split} {loss.words}" for loss in lost)
            + ". More --samples may help, or training samples that are more like these"
        )


def _written(request: QuantiseRequest, quantised: Bundle, losses: tuple[Loss, ...]) -> Bundle:
    assert quantised.quantised is not None
    facts = {
        "bundle_sha256": quantised.digest,
        "dataset_sha256": quantised.quantised.dataset_sha256,
        **facts_of(losses),
    }
    described = replace(
        quantised,
        metrics={**quantised.metrics, "quantisation": facts},
        card=quantised_card(quantised.card, quantised.quantised, losses),
    )
    return save_bundle(request.output, described, half=_is_half(quantised))


def _is_half(bundle: Bundle) -> bool:
    assert bundle.path is not None
    return is_half(bundle.path)


def _write_report(
    directory: QuantisationDirectory,
    request: QuantiseRequest,
    bundle: Bundle,
    losses: tuple[Loss, ...],
    store: DatasetStore,
) -> None:
    assert bundle.quantised is not None
    rows = [[loss.split, f"{loss.samples:,}", f"{loss.float32.f1:.4f}", f"{loss.integers.f1:.4f}"] for loss in losses]
    current_observer().show(Markdown("quantisation", markdown_table(_HEADER, rows), "F1 in both precisions"))
    write_page(
        directory.report,
        Page(
            title=f"{request.output.stem}, quantised on {store.path.parent.name}",
            subtitle=f"bundle SHA-256 {bundle.digest}; dataset SHA-256 {store.digest}",
            sections=[
                Section(
                    heading="What integers lose",
                    text="Scores at the frozen threshold, of distances in either precision. One date of "
                    f"{bundle.quantised.side} × {bundle.quantised.side} px on one core of this machine: "
                    f"{speed_words(bundle.quantised.milliseconds)}.",
                    header=_HEADER,
                    rows=rows,
                ),
                Section(heading="Model card", preformatted=bundle.card),
            ],
        ),
    )

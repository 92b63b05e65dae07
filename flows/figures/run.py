"""figures: what a trained network sees, as the figures of the paper show it, on samples of a dataset's test split."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.networks.precomputed import PrecomputedArchitecture
from dasnet.prediction.bundle import Bundle, load_bundle
from dasnet.training.directory import BUNDLE, WHOLE_HISTORY
from flows.dataset.fitting import fitted
from flows.figures.directory import FiguresDirectory
from flows.figures.pictures import HEADINGS, figures_of, scales_picture
from flows.figures.request import FiguresRequest
from flows.run.artifacts import Picture
from flows.run.observer import current_observer
from flows.run.versions import versions
from storage.datasets.store import open_dataset
from storage.errors import InputError
from storage.pages.page import Page, Section, write_page
from storage.places.publish import publish


@dataclass(frozen=True, kw_only=True)
class FiguresSummary:
    """Which figures there are, and which not and why."""

    page: Path
    figures: tuple[Path, ...]
    left_out: tuple[str, ...]

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        return [
            ("figures", ", ".join(path.name for path in self.figures)),
            *(("left out", reason) for reason in self.left_out),
            ("page", str(self.page)),
        ]


def draw_figures(request: FiguresRequest) -> FiguresSummary:
    """A trained network in; distance maps, t-SNE, Grad-CAM, attention and η, γ by epoch out, PNG and one page."""
    bundle, history = _source(request.source)
    store = open_dataset(request.dataset)
    fitted(store, bundle, name=request.source)
    beside = None if request.beside is None else _source(request.beside)[0]
    if beside is not None:
        fitted(store, beside, name=str(request.beside))
    changed = store.changed("test")
    if not len(changed):
        raise InputError(f"{store.path}, split test: not one changed pixel, so there is nothing to show")
    if request.pixel is not None and not all(0 <= place < store.window for place in request.pixel):
        raise InputError(f"pixel {request.pixel} lies outside samples of {store.window} × {store.window} px")
    directory = FiguresDirectory(request.output)
    with directory.locked():
        identity = {
            "kind": "figures",
            "bundle": bundle.digest,
            "beside": None if beside is None else beside.digest,
            "dataset": store.digest,
            "samples": request.samples,
            "pixel": request.pixel,
        }
        directory.adopt(identity, versions=versions())
        reporter = current_observer()
        reporter.begin("figures", len(HEADINGS), unit="figures")
        made, left_out = figures_of(bundle, store, changed, samples=request.samples, beside=beside, pixel=request.pixel)
        scales = scales_picture(history)
        if scales is None:
            left_out.append("η and γ by epoch: these come from a training directory of a DASNet with attention")
        else:
            made["scales"] = scales
        for name, (picture, caption) in made.items():
            with publish(directory.figure(name)) as draft:
                draft.write_bytes(picture)
            reporter.show(Picture(name, picture, caption))
        headings = {**HEADINGS, "scales": "η and γ by epoch (as Figure 9)"}
        dataset = f"test split of {store.path.parent.name}, SHA-256 {store.digest}"
        write_page(
            directory.page,
            Page(
                title=f"What {Path(request.source).name} sees",
                subtitle=f"bundle SHA-256 {bundle.digest}; {dataset}",
                warnings=[f"left out: {reason}" for reason in left_out],
                sections=[Section(heading=headings[name], pictures=[made[name]]) for name in headings if name in made],
            ),
        )
        directory.update(state="finished")
        reporter.end(f"{len(made)} figures")
    return FiguresSummary(
        page=directory.page, figures=tuple(directory.figure(name) for name in made), left_out=tuple(left_out)
    )


def _source(source: str) -> tuple[Bundle, list[dict[str, Any]]]:
    """A bundle, and the history of its training where that is at hand."""
    folder = Path(source)
    if not folder.is_dir():
        bundle = load_bundle(source)
        if isinstance(bundle.architecture, ImportedArchitecture):
            raise InputError(
                f"{source} is an imported graph of ONNX: figures look into layers, and it shows none; "
                "`dasnet evaluate` tells how good it is"
            )
        if isinstance(bundle.architecture, PrecomputedArchitecture):
            raise InputError(f"{source} compares embeddings as they are: figures look into layers, and it has none")
        return bundle, []
    history = folder / WHOLE_HISTORY
    return load_bundle(folder / BUNDLE), json.loads(history.read_text()) if history.exists() else []

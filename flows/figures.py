"""figures: what a trained network sees, as the figures of the paper show it, on samples of a dataset's test split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from prefect import flow
from pydantic import Field
from torch import Tensor

from dasnet.attention import SpatialAttention
from dasnet.bundle import Bundle, build_model, load_bundle
from dasnet.change_network import ChangeNetwork
from dasnet.explanations import attention_of, differences, distance_maps, embedded_in_a_plane, grad_cam, layers_of
from dasnet.model import DASNet
from flows import artifacts
from flows.config import Frozen, LocalDirectory
from flows.console import current_reporter
from flows.run_directory import RunDirectory
from flows.score import require_fit
from flows.versions import versions
from storage.charts import lines
from storage.dataset_store import DatasetStore, Samples, open_dataset
from storage.errors import InputError
from storage.maps import Cell, clouds, grid_of_maps
from storage.page import Page, Section, write_page
from storage.publish import publish
from storage.quicklook import display_bands, stretch

_CLOUD = 300
_CLOUD_SAMPLES = 24


class FiguresRequest(Frozen):
    """A trained network and labelled samples in, figures out."""

    source: Annotated[str, Field(description="Training directory, path of a bundle, or name of a shipped one.")]
    dataset: Annotated[Path, Field(description="Dataset directory; its test split is shown.")]
    output: Annotated[LocalDirectory, Field(description="Directory of the figures: new, or of the same ones.")]
    beside: Annotated[
        str | None,
        Field(description="Another training or bundle beside it in the t-SNE, for example one without attention."),
    ] = None
    samples: Annotated[int, Field(ge=1, le=12, description="Test samples with change that are shown.")] = 3
    pixel: Annotated[
        tuple[int, int] | None,
        Field(description="Row and column whose attention is shown; empty: in the middle of what changed."),
    ] = None


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


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """Samples as they are shown and as a network takes them.

    Attributes:
        images: (2b, C, s, s) normalised; `pictures`: for each sample both dates (s, s, 3).
    """

    bundle: Bundle
    network: ChangeNetwork
    samples: Samples
    images: Tensor
    pictures: Sequence[Sequence[Any]]
    titles: Sequence[str]

    @property
    def side(self) -> int:
        return int(self.samples.label.shape[-1])


@flow(name="figures", flow_run_name="{request.output.name}", persist_result=False)
def figures(request: FiguresRequest) -> FiguresSummary:
    """A trained network in; distance maps, t-SNE, Grad-CAM, attention and η, γ by epoch out, PNG and one page."""
    bundle, history = _source(request.source)
    store = open_dataset(request.dataset)
    require_fit(bundle, store, name=request.source)
    beside = None if request.beside is None else _source(request.beside)[0]
    if beside is not None:
        require_fit(beside, store, name=str(request.beside))
    test = store.indices("test")
    changed = test[store.pixels("changed")[test] > 0]
    if not len(changed):
        raise InputError(f"{store.path}, split test: not one changed pixel, so there is nothing to show")
    if request.pixel is not None and not all(0 <= place < store.window for place in request.pixel):
        raise InputError(f"pixel {request.pixel} lies outside samples of {store.window} × {store.window} px")
    directory = RunDirectory(request.output)
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
        reporter = current_reporter()
        reporter.begin("figures", 5, unit="figures")
        shown = _shown(bundle, store, _spread(changed, request.samples))
        made: dict[str, tuple[bytes, str]] = {}
        left_out: list[str] = []
        made["distances"] = _distances(shown)
        reporter.advance()
        made["grad-cam"] = _grad_cam(shown)
        reporter.advance()
        if isinstance(shown.network, DASNet) and isinstance(shown.network.head.sa, SpatialAttention):
            made["attention"] = _attention(shown, request.pixel)
        else:
            left_out.append("attention of a pixel: the network has no spatial attention")
        reporter.advance()
        made["t-sne"] = _clouds(
            [bundle] if beside is None else [bundle, beside], store, _spread(changed, _CLOUD_SAMPLES)
        )
        reporter.advance()
        scales = _scales(history)
        if scales is None:
            left_out.append("η and γ by epoch: these come from a training directory of a DASNet with attention")
        else:
            made["scales"] = scales
        page = _write(request, bundle, store, made, left_out)
        directory.update(state="finished")
        reporter.end(f"{len(made)} figures")
    return FiguresSummary(
        page=page, figures=tuple(request.output / f"{name}.png" for name in made), left_out=tuple(left_out)
    )


def _write(
    request: FiguresRequest,
    bundle: Bundle,
    store: DatasetStore,
    made: dict[str, tuple[bytes, str]],
    left_out: Sequence[str],
) -> Path:
    for name, (picture, caption) in made.items():
        with publish(request.output / f"{name}.png") as draft:
            draft.write_bytes(picture)
        artifacts.show_picture(name, picture, caption)
    page = request.output / "figures.html"
    headings = {
        "distances": "Distances by layer and metric (as Figure 6)",
        "grad-cam": "Grad-CAM (as Figure 11)",
        "attention": "What a pixel attends to",
        "t-sne": "Features in a plane (as Figure 10)",
        "scales": "η and γ by epoch (as Figure 9)",
    }
    sections = [Section(heading=headings[name], pictures=[made[name]]) for name in headings if name in made]
    write_page(
        page,
        Page(
            title=f"What {Path(request.source).name} sees",
            subtitle=f"bundle SHA-256 {bundle.digest}; test split of {store.path.parent.name}, SHA-256 {store.digest}",
            warnings=[f"left out: {reason}" for reason in left_out],
            sections=sections,
        ),
    )
    return page


def _source(source: str) -> tuple[Bundle, list[dict[str, Any]]]:
    """A bundle, and the history of its training where that is at hand."""
    folder = Path(source)
    if not folder.is_dir():
        return load_bundle(source), []
    history = folder / "history.json"
    return load_bundle(folder / "bundle.safetensors"), json.loads(history.read_text()) if history.exists() else []


def _spread(indices: Any, count: int) -> list[int]:
    return [int(i) for i in indices[np.unique(np.linspace(0, len(indices) - 1, min(count, len(indices))).astype(int))]]


def _shown(bundle: Bundle, store: DatasetStore, indices: Sequence[int]) -> _Shown:
    samples = store.read(indices)
    bands = display_bands(store.bands)
    pictures = [
        list(stretch(np.stack([before[bands], after[bands]]).astype(np.float32), valid))
        for before, after, valid in zip(samples.before, samples.after, samples.valid, strict=True)
    ]
    return _Shown(
        bundle=bundle,
        network=build_model(bundle).eval(),
        samples=samples,
        images=_normalised(bundle, samples),
        pictures=pictures,
        titles=[f"{store.sources[i]}" for i in indices],
    )


def _normalised(bundle: Bundle, samples: Samples) -> Tensor:
    mean = torch.tensor([band.mean for band in bundle.bands])[:, None, None]
    std = torch.tensor([band.std for band in bundle.bands])[:, None, None]
    dates = [torch.from_numpy(date.astype(np.float32)) for date in (samples.before, samples.after)]
    known = torch.from_numpy(np.moveaxis(samples.valid, 1, 0)[:, :, None])
    return torch.cat([((date - mean) / std) * valid for date, valid in zip(dates, known, strict=True)])


def _pair(shown: _Shown, number: int) -> list[Cell]:
    label = np.repeat((shown.samples.label[number] == 1)[..., None] * np.uint8(255), 3, axis=2).astype(np.uint8)
    before, after = shown.pictures[number]
    return [Cell(values=before, title="before"), Cell(values=after, title="after"), Cell(values=label, title="label")]


def _distances(shown: _Shown) -> tuple[bytes, str]:
    with torch.inference_mode():
        layers, _ = layers_of(shown.network, shown.images)
    maps = distance_maps(layers)
    rows = [
        [
            *_pair(shown, number),
            *(
                Cell(values=found[number], title=f"{name}\n{metric}")
                for name, metrics in maps.items()
                for metric, found in metrics.items()
            ),
        ]
        for number in range(len(shown.titles))
    ]
    # a network that is little trained keeps to a small part of [0, 2], and would be dark all over
    highest = max(float(found.max()) for metrics in maps.values() for found in metrics.values()) or 2.0
    picture = grid_of_maps(rows, side=shown.side, scale="distance of features", high=highest, row_titles=shown.titles)
    return picture, (
        "Distance between the two dates at each layer, by both metrics, of features made one long at each position; "
        "of such vectors L2² = 2 · cosine, so that L2 shows small differences and cosine hides them"
    )


def _grad_cam(shown: _Shown) -> tuple[bytes, str]:
    names = list(layers_of(shown.network, shown.images[[0, len(shown.titles)]])[0])
    layer = names[0] if isinstance(shown.network, DASNet) else names[-1]
    chosen = [name for name in names if name != "fused embedding"] if isinstance(shown.network, DASNet) else [layer]
    maps = {name: grad_cam(shown.network, shown.images, shown.samples.label, layer=name) for name in chosen}
    rows = [
        [
            *_pair(shown, number),
            *(
                Cell(values=dates[when][number], title=f"{name}\n{date}", under=shown.pictures[number][when])
                for name, dates in maps.items()
                for when, date in enumerate(("before", "after"))
            ),
        ]
        for number in range(len(shown.titles))
    ]
    picture = grid_of_maps(rows, side=shown.side, scale="share of the highest", high=1.0, row_titles=shown.titles)
    return picture, (
        "What in each date makes the changed pixels distant: Grad-CAM with the mean distance over the changed pixels "
        "as its score, one map a date"
    )


def _attention(shown: _Shown, pixel: tuple[int, int] | None) -> tuple[bytes, str]:
    rows = []
    for number in range(len(shown.titles)):
        row, column = pixel or _inside(shown.samples.label[number])
        both = shown.images[[number, number + len(shown.titles)]]
        maps = attention_of(shown.network, both, row=row, column=column)
        cells = _pair(shown, number)
        for date, found, picture in zip(("before", "after"), maps, shown.pictures[number], strict=True):
            share = found / found.max()
            cells.append(
                Cell(values=share, title=f"{date}: {found.max():.1%} at most", under=picture, mark=(row, column))
            )
        rows.append(cells)
    picture = grid_of_maps(rows, side=shown.side, scale="share of the highest", high=1.0, row_titles=shown.titles)
    return picture, "Where the spatial attention of the marked pixel (+) goes, in each date; all of it adds up to 100 %"


def _inside(label: Any) -> tuple[int, int]:
    """A changed pixel near the middle of all changed ones."""
    places = np.argwhere(label == 1)
    nearest = places[np.square(places - places.mean(axis=0)).sum(axis=1).argmin()]
    return int(nearest[0]), int(nearest[1])


def _clouds(bundles: Sequence[Bundle], store: DatasetStore, indices: Sequence[int]) -> tuple[bytes, str]:
    panels = []
    for bundle in bundles:
        shown = _shown(bundle, store, indices)
        with torch.inference_mode():
            layers, _ = layers_of(shown.network, shown.images)
        name, features = list(layers.items())[-1]
        vectors, changed = differences(features, shown.samples.label, most=_CLOUD, seed=0)
        if len(vectors) < 4:
            raise InputError(f"{store.path}, split test: {len(vectors)} labelled positions are too few for t-SNE")
        attention = getattr(bundle.architecture, "attention", None)
        title = name if attention is None else f"{name}, attention {attention}"
        panels.append((title, embedded_in_a_plane(vectors, seed=0), changed))
    return clouds(panels), (
        f"t-SNE of the differences between the two dates' features at up to {_CLOUD} changed and as many unchanged "
        "positions; distances between clouds mean nothing, their mixing does"
    )


def _scales(history: Sequence[dict[str, Any]]) -> tuple[bytes, str] | None:
    epochs = [facts for facts in history if facts["kind"] == "epoch"]
    number = [facts["epoch"] + 1 for facts in epochs]
    series = {
        name: (number, [facts[key] for facts in epochs])
        for name, key in (("η, spatial", "eta"), ("γ, channel", "gamma"))
        if epochs and epochs[0][key] is not None
    }
    if not series:
        return None
    return (
        lines({"Attention's scales": series}, x_label="epoch", y_labels=("value",)),
        "η of the spatial and γ of the channel attention after each epoch; both begin at 0, without attention",
    )

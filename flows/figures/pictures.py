"""What a network sees, drawn: distances by layer, Grad-CAM, attention of a pixel, features in a plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dasnet.explanations import (
    DEEPEST,
    attention_of,
    distance_maps,
    embedded_in_a_plane,
    few_of_each,
    grad_cam,
    labelled_vectors,
    last_features,
    seen_by,
    spacing,
)
from dasnet.networks.attention import SpatialAttention
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.dasnet import DASNet
from dasnet.prediction.bundle import Bundle, build_model
from flows.dataset.fitting import fitted
from flows.run.errors import reason_of
from flows.run.observer import current_observer
from storage.datasets.store import DatasetStore, Samples, few_of
from storage.errors import InputError
from storage.pages.charts import lines
from storage.pages.colours import display_bands, stretch
from storage.pages.maps import Cell, clouds, grid_of_maps

Figure = tuple[bytes, str]
"""A PNG and its caption."""

HEADINGS = {
    "distances": "Distances by layer and metric (as Figure 6)",
    "grad-cam": "Grad-CAM (as Figure 11)",
    "attention": "What a pixel attends to",
    "t-sne": "Features in a plane (as Figure 10)",
}

_CLOUD = 300
_CLOUD_SAMPLES = 24


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


def figures_of(
    bundle: Bundle,
    store: DatasetStore,
    changed: Any,
    *,
    samples: int = 3,
    beside: Bundle | None = None,
    pixel: tuple[int, int] | None = None,
) -> tuple[dict[str, Figure], list[str]]:
    """The figures by name, in the order of :data:`HEADINGS`, and what is left out and why.

    Args:
        changed: indices of samples with a change, of which `samples` are shown, drawn once and for all.
        beside: another network in the t-SNE.
        pixel: row and column whose attention is shown; None = in the middle of what changed.
    """
    reporter = current_observer()
    shown = _shown(bundle, store, few_of(changed, samples))
    bundles = [bundle] if beside is None else [bundle, beside]
    drawn: dict[str, Callable[[], Figure]] = {
        "distances": lambda: _distances(shown),
        "grad-cam": lambda: _grad_cam(shown),
        "attention": lambda: _attention(shown, pixel),
        "t-sne": lambda: _clouds(bundles, store, few_of(changed, _CLOUD_SAMPLES)),
    }
    made: dict[str, Figure] = {}
    left_out: list[str] = []
    for name in HEADINGS:
        try:
            made[name] = drawn[name]()
        except Exception as error:
            # whatever ends one figure, the others are drawn, and a training has its report
            left_out.append(f"{HEADINGS[name]}: {reason_of(error)}")
        reporter.advance()
    return made, left_out


def _shown(bundle: Bundle, store: DatasetStore, indices: Sequence[int]) -> _Shown:
    store = fitted(store, bundle, name=str(bundle.path))
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
    masks = torch.from_numpy(np.moveaxis(samples.valid, 1, 0)[:, :, None])
    return torch.cat([((date - mean) / std) * valid for date, valid in zip(dates, masks, strict=True)])


def _pair(shown: _Shown, number: int) -> list[Cell]:
    label = np.repeat((shown.samples.label[number] == 1)[..., None] * np.uint8(255), 3, axis=2).astype(np.uint8)
    before, after = shown.pictures[number]
    return [Cell(values=before, title="before"), Cell(values=after, title="after"), Cell(values=label, title="label")]


def _of_positions(shown: _Shown, values: Any, **described: Any) -> Cell:
    """Numbers at a layer's positions, where these lie in the image: DASNet's first one at its first pixel."""
    centred = isinstance(shown.network, DASNet)
    return Cell(values=values, spacing=spacing(shown.side, len(values)) if centred else 0, **described)


def _distances(shown: _Shown) -> tuple[bytes, str]:
    with torch.inference_mode():
        maps = distance_maps(seen_by(shown.network, shown.images))
    rows = [
        [
            *_pair(shown, number),
            *(
                _of_positions(shown, values[number], title=f"{name}\n{metric}")
                for name, metrics in maps.items()
                for metric, values in metrics.items()
            ),
        ]
        for number in range(len(shown.titles))
    ]
    # a network that is little trained keeps to a small part of [0, 2], and would be dark all over
    highest = max(float(values.max()) for metrics in maps.values() for values in metrics.values()) or 2.0
    picture = grid_of_maps(rows, side=shown.side, scale="distance of features", high=highest, row_titles=shown.titles)
    return picture, (
        "Distance between the two dates at each layer, by both metrics, of features made one long at each position; "
        "of such vectors L2² = 2 · cosine, so that L2 shows small differences and cosine hides them"
    )


def _grad_cam(shown: _Shown) -> tuple[bytes, str]:
    seen = seen_by(shown.network, shown.images[[0, len(shown.titles)]])
    if isinstance(shown.network, DASNet):
        chosen = [name for name in seen.dates if name != "fused embedding"]
    else:
        chosen = [DEEPEST if DEEPEST in seen.both else list(seen.dates)[-1]]
    maps = {name: grad_cam(shown.network, shown.images, shown.samples.label, layer=name) for name in chosen}
    rows = []
    for number in range(len(shown.titles)):
        before, after = shown.pictures[number]
        cells = _pair(shown, number)
        for name, of_dates in maps.items():
            titles = [(f"{name}\nbefore", before), (f"{name}\nafter", after)] if len(of_dates) == 2 else [(name, after)]
            cells += [
                _of_positions(shown, of_date[number], title=title, under=picture)
                for (title, picture), of_date in zip(titles, of_dates, strict=True)
            ]
        rows.append(cells)
    picture = grid_of_maps(rows, side=shown.side, scale="share of the highest", high=1.0, row_titles=shown.titles)
    return picture, (
        "What makes the network call the changed pixels changed: Grad-CAM with their mean distance, or log-odds, as "
        "its score; one map a date, or one for both of a network that joins them before"
    )


def _attention(shown: _Shown, pixel: tuple[int, int] | None) -> tuple[bytes, str]:
    if not isinstance(shown.network, DASNet) or not isinstance(shown.network.head.sa, SpatialAttention):
        raise InputError("the network has no spatial attention")
    rows = []
    for number in range(len(shown.titles)):
        row, column = pixel or _inside(shown.samples.label[number])
        both = shown.images[[number, number + len(shown.titles)]]
        maps = attention_of(shown.network, both, row=row, column=column)
        cells = _pair(shown, number)
        for date, weights, picture in zip(("before", "after"), maps, shown.pictures[number], strict=True):
            share = weights / weights.max()
            cells.append(
                _of_positions(
                    shown, share, title=f"{date}: {weights.max():.1%} at most", under=picture, mark=(row, column)
                )
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
        name, vectors, changed = _last_features(bundle, store, indices)
        if len(vectors) < 4:
            raise InputError(f"{store.path}: {len(vectors)} labelled positions are too few for t-SNE")
        attention = getattr(bundle.architecture, "attention", None)
        title = name if attention is None else f"{name}, attention {attention}"
        panels.append((title, embedded_in_a_plane(vectors, seed=0), changed))
    return clouds(panels), (
        "t-SNE of what the network decides by, which is the difference of the two dates' features where it compares "
        f"dates, at up to {_CLOUD} changed and as many unchanged positions; distances between clouds mean nothing, "
        "their mixing does"
    )


def _last_features(bundle: Bundle, store: DatasetStore, indices: Sequence[int]) -> tuple[str, Any, Any]:
    """Name of what the network decides by, its values (n, C) at labelled positions, and (n,) which of them changed.

    One sample at a time: at full resolution, what a network decides by is larger than its images.
    """
    store = fitted(store, bundle, name=str(bundle.path))
    network = build_model(bundle).eval()
    parts, kinds, name = [], [], ""
    for index in indices:
        sample = store.read([index])
        with torch.inference_mode():
            name, features = last_features(network, _normalised(bundle, sample))
        vectors, changed = labelled_vectors(features, sample.label, most=_CLOUD, seed=index)
        parts.append(vectors)
        kinds.append(changed)
    vectors, changed = np.concatenate(parts), np.concatenate(kinds)
    chosen = few_of_each(changed, most=_CLOUD, seed=0)
    return name, vectors[chosen], changed[chosen]


def scales_picture(history: Sequence[dict[str, Any]]) -> tuple[bytes, str] | None:
    """η and γ after each epoch, PNG and caption; None of a network without attention."""
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
        "η of the spatial and γ of the channel attention after each epoch, as in Figure 9; both begin at 0, without "
        "attention",
    )

"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.pages.page import render
from storage.pages.pictures import outlines, photograph
from storage.pages.quicklook import Quicklooks
from storage.places.bucket import Location
from tiling.conventions import DISAGREEMENT_BINS, DISAGREEMENT_SCALE, NODATA

_BARS = 64


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that the report shows.

    Attributes:
        title, subtitle: what stands above the page.
        looks: the pictures.
        before_label, after_label: captions of the two dates.
        cards: (what, figure, explanation) of the summary.
        warnings: plain sentences.
        tables: title and (name, value) rows of each table of details.
        histogram: (256,) pixels by stored probability.
        threshold: on the probability.
        card: the bundle's model card, Markdown, shown as it is.
    """

    title: str
    subtitle: str
    looks: Quicklooks
    before_label: str
    after_label: str
    cards: Sequence[tuple[str, str, str]]
    warnings: Sequence[str]
    tables: Mapping[str, Sequence[tuple[str, str]]]
    histogram: Sequence[int]
    threshold: float
    card: str


def write_report(path: Location, data: ReportData) -> None:
    """Write the page; all text in it is escaped, all pictures are inside it."""
    render(
        path,
        "report.html",
        page=data,
        before=photograph(data.looks.before),
        after=photograph(data.looks.after),
        probability=photograph(data.looks.probability),
        outline=outlines(data.looks.changed),
        height=data.looks.before.shape[0],
        width=data.looks.before.shape[1],
        bars=_bars(data.histogram),
        threshold_at=100 * data.threshold,
    )


def disagreement_summary(histogram: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and 95th percentile of the windows' disagreement: standard deviations of probability, in [0, 0.5].

    Args:
        histogram: (256,) pixels by standard deviation × 510.
    """
    total = int(histogram.sum())
    if not total:
        return 0.0, 0.0
    values = np.arange(DISAGREEMENT_BINS) / DISAGREEMENT_SCALE
    percentile = values[np.searchsorted(np.cumsum(histogram), 0.95 * total)]
    return float((histogram * values).sum() / total), float(percentile)


def _bars(histogram: Sequence[int]) -> list[tuple[float, float, float, str]]:
    """(x, width, height, title) of the bars of the probability's histogram, in per cent; heights are logarithmic."""
    counts = np.add.reduceat(
        np.asarray(histogram[:NODATA], dtype=float), np.linspace(0, NODATA, _BARS, endpoint=False).astype(int)
    )
    heights = np.log10(1 + counts)
    heights = 100 * heights / max(heights.max(), 1e-9)
    step = 100 / _BARS
    return [
        (
            number * step,
            step * 0.86,
            float(height),
            f"{number / _BARS:.2f}–{(number + 1) / _BARS:.2f}: {int(count):,} px",
        )
        for number, (height, count) in enumerate(zip(heights, counts, strict=True))
    ]

"""Charts for reports and artifacts, as PNG bytes: labelled, and told apart by colour-blind readers too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from storage.pages.pictures import png

# Okabe and Ito's colours
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", "-.", ":", "-", "--")
_MARKS = ("", "o", "s", "^", "D", "v")
_INSIDE = 6
"""Names that a legend inside the axes has room for."""

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Name of a line → its x and y."""


def lines(
    panels: Mapping[str, Series],
    *,
    x_label: str,
    y_labels: Sequence[str],
    x_labels: Sequence[str] = (),
    log: Sequence[bool] = (),
) -> bytes:
    """Panels beside each other, each with a title and lines.

    Args:
        panels: title → lines.
        x_label: below all panels, `x_labels`: below each instead.
        y_labels: beside each panel.
        log: for each panel whether its y axis is logarithmic; empty = none is.
    """
    figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained", dpi=110)
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for number, (axis, (title, series)) in enumerate(zip(axes, panels.items(), strict=True)):
        for order, (name, (x, y)) in enumerate(series.items()):
            style, mark = _STYLES[order % 6], _MARKS[order // 6 % 6] if len(series) > 6 else ""
            axis.plot(x, y, label=name, color=_COLOURS[order % 6], linestyle=style, marker=mark, linewidth=1.6)
        axis.set(title=title, xlabel=x_labels[number] if x_labels else x_label, ylabel=y_labels[number])
        if log and log[number]:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        if 1 < len(series) <= _INSIDE:
            axis.legend(frameon=False, fontsize=8)
    if max(map(len, panels.values()), default=0) > _INSIDE:  # they would hide the lines
        most = max(axes, key=lambda axis: len(axis.lines))
        figure.legend(handles=most.lines, loc="outside right center", frameon=False, fontsize=8)
    return png(figure)


def reliability_diagram(series: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> bytes:
    """Observed share of change over probability, each (bins,), NaN where a bin is empty."""
    figure = Figure(figsize=(4.4, 4.0), layout="constrained", dpi=110)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="#888888", linewidth=1, label="perfect")
    for order, (name, (probability, observed)) in enumerate(series.items()):
        filled = np.isfinite(probability)
        axis.plot(probability[filled], observed[filled], marker="os^"[order % 3], color=_COLOURS[order], label=name)
    axis.set(xlabel="probability", ylabel="observed share of change", xlim=(0, 1), ylim=(0, 1), title="Reliability")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    return png(figure)


def curves_of_thresholds(
    *,
    false_alarm_rate: NDArray[np.float64],
    recall: NDArray[np.float64],
    precision: NDArray[np.float64],
    chosen: tuple[float, float, float],
    roc_area: float,
    average_precision: float,
) -> bytes:
    """ROC and precision over recall; `chosen` = false alarm rate, recall, precision at the frozen threshold."""
    figure = Figure(figsize=(9.2, 3.8), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    left.plot(false_alarm_rate, recall, color=_COLOURS[0])
    left.plot([0, 1], [0, 1], color="#888888", linewidth=1)
    left.scatter([chosen[0]], [chosen[1]], color=_COLOURS[1], zorder=3, label="frozen threshold")
    left.set(xlabel="false alarm rate", ylabel="recall", title=f"ROC, area {roc_area:.3f}")
    right.plot(recall, precision, color=_COLOURS[0])
    right.scatter([chosen[1]], [chosen[2]], color=_COLOURS[1], zorder=3, label="frozen threshold")
    right.set(
        xlabel="recall",
        ylabel="precision",
        title=f"Precision and recall, average {average_precision:.3f}",
        ylim=(0, 1.02),
    )
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    return png(figure)


def dots(series: Mapping[str, Sequence[float]], *, x_label: str) -> bytes:
    """A line for each name, the first on top: a dot for each of its values, a bar at their mean."""
    figure = Figure(figsize=(7.6, 0.9 + 0.3 * max(len(series), 1)), layout="constrained", dpi=110)
    axis = figure.subplots()
    for place, values in enumerate(series.values()):
        if len(values):
            axis.plot([float(np.mean(values))] * 2, [place - 0.3, place + 0.3], color=_COLOURS[1], linewidth=2.5)
        axis.scatter(values, [place] * len(values), color=_COLOURS[0], s=26, zorder=3)
    axis.set_yticks(range(len(series)), list(series))
    axis.set(xlabel=x_label, xlim=(-0.02, 1.02), ylim=(len(series) - 0.5, -0.5))
    axis.grid(alpha=0.3)
    return png(figure)


def heat(
    values: NDArray[np.float64],
    *,
    x: Sequence[float],
    y: Sequence[float],
    x_label: str,
    y_label: str,
    scale_label: str,
) -> bytes:
    """Values (len(y), len(x)) as colours with their figures, dark to light; NaN stays empty. The first y is lowest."""
    figure = Figure(figsize=(1.8 + 0.9 * len(x), 1.2 + 0.7 * len(y)), layout="constrained", dpi=110)
    axis = figure.subplots()
    picture = axis.imshow(values, origin="lower", cmap="cividis", aspect="auto")
    middle = np.nanmean([np.nanmin(values), np.nanmax(values)]) if np.isfinite(values).any() else 0.0
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value < middle else "black"
            axis.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(range(len(x)), [f"{value:g}" for value in x])
    axis.set_yticks(range(len(y)), [f"{value:g}" for value in y])
    axis.set(xlabel=x_label, ylabel=y_label)
    figure.colorbar(picture, ax=axis, label=scale_label)
    return png(figure)

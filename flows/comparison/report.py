"""What a person should see of a comparison: tables with their spread, the same samples by every method, curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dasnet.metrics import Confusion
from dasnet.networks.encoders.start_weights import start_weights
from dasnet.prediction.bundle import Bundle, load_bundle
from dasnet.prediction.predictor import DasnetPredictor
from dasnet.training.pseudo_changes import AXES
from flows.comparison.cost import device
from flows.comparison.directory import ComparisonDirectory
from flows.comparison.request import CompareRequest
from flows.comparison.results import HEADER, HIGHEST, Result, Row, best_of, results_csv, shown, tables_csv
from flows.comparison.robustness import StrengthCurves, robustness_csv
from flows.comparison.untrained import UntrainedScore
from flows.comparison.variants import TableName
from flows.run.artifacts import Picture, Table
from flows.run.errors import reason_of
from flows.run.machine import machine
from flows.run.observer import current_observer
from flows.training.directory import TrainingDirectory
from storage.datasets.store import DatasetStore, Samples, few_of
from storage.pages.charts import dots, heat, lines
from storage.pages.page import Page, Section, markdown_table, write_page
from storage.pages.side_by_side import Seen, side_by_side
from storage.places.publish import publish

_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What methods reach beside each other.

    Attributes:
        tables: their rows, in the order asked for.
        untrained: what methods without training reach, by name.
        curves: F1 against pseudo-changes; None = not asked for.
        failed: why, of each training, method or curve that is missing.
    """

    request: CompareRequest
    store: DatasetStore
    directory: ComparisonDirectory
    tables: Mapping[TableName, Sequence[Row]]
    untrained: Mapping[str, UntrainedScore]
    curves: StrengthCurves | None
    failed: Mapping[str, str]

    @property
    def results(self) -> list[Result]:
        """Those of all rows of all tables; a training that stands in several is there several times."""
        return [result for rows in self.tables.values() for row in rows for result in row.results]

    def bundle(self, training: str) -> Bundle:
        """What a training has made."""
        return load_bundle(TrainingDirectory(self.directory.trainings / training).bundle)

    def heading(self, table: TableName) -> str:
        described = self.request.contents[table]
        return f"{described.title} ({described.paper})"


def write_comparison(comparison: Comparison) -> None:
    """Write tables as Markdown and CSV, and the page; show them to who watches."""
    request, store, tables, directory = comparison.request, comparison.store, comparison.tables, comparison.directory
    explained = _explanation(comparison)
    warnings = _different_versions(comparison)
    failures = [f"{what} failed: {reason}" for what, reason in comparison.failed.items()]
    cells = {name: [row.cells() for row in rows] for name, rows in tables.items()}
    # the tables first: what cannot be drawn must not cost them
    markdown = "\n\n".join(
        f"### {comparison.heading(name)}\n\n{markdown_table(HEADER, rows)}" for name, rows in cells.items()
    )
    reasons = "".join(f"\n- {failure}" for failure in failures)
    _write(directory.tables, f"{explained}\n\n{markdown}\n{reasons}\n")
    _write(directory.tables_csv, tables_csv(tables.items()))
    _write(directory.results_csv, results_csv(comparison.results))
    pictures = _pictures(comparison)
    side, missing = _side_by_side(comparison)
    for reason in missing:
        current_observer().warn(reason)
    sections = [Section(heading="How to read this", text=explained)]
    sections += [_section(comparison, name, pictures) for name in tables]
    if side is not None:
        caption = "Test samples with change, drawn before any method saw them; the first seed of each"
        pictures["side-by-side"] = (side, caption)
        sections.append(Section(heading="Side by side", pictures=[pictures["side-by-side"]]))
    if comparison.curves is not None:
        _write(directory.robustness_csv, robustness_csv(comparison.curves))
        drawn = [picture for name, picture in pictures.items() if name.startswith("robustness")]
        sections.append(Section(heading="Robustness", text=_ROBUSTNESS, pictures=drawn))
    sections += _settings(request)
    best = best_of(tables[next(iter(tables))])
    cards = [] if best is None else [("best F1", f"{best.figures['f1'][0]:.3f}", best.name)]
    cards += [
        ("rows", f"{sum(map(len, tables.values()))}", f"in {len(tables)} tables"),
        ("seeds", f"{request.seeds}", "of each trained method"),
        ("failed", f"{len(failures)}", "named above" if failures else "none"),
    ]
    write_page(
        directory.report,
        Page(
            title=f"Methods compared on {store.path.parent.name}",
            subtitle=f"dataset SHA-256 {store.digest}",
            cards=cards,
            warnings=[*warnings, *missing, *failures],
            sections=sections,
        ),
    )
    for name, rows in cells.items():
        header = ("row", *HEADER[1:])
        current_observer().show(Table(f"comparison-{name}", header, rows, comparison.heading(name)))
    for key, (picture, caption) in pictures.items():
        current_observer().show(Picture(key, picture, caption))


def _write(path: Path, text: str) -> None:
    with publish(path) as draft:
        draft.write_text(text, encoding="utf-8")


_ROBUSTNESS = (
    "Every sample draws the same season, veil, light or shift for every method, weaker or stronger: season, veil and "
    "light of each date by itself, the shift of the second date alone. A shift moves what is new in the second date "
    "too, and not its label, so that a method without a fault loses F1 by it as well. Methods without training are "
    "fitted anew each time, to what they are judged on."
)


def _explanation(comparison: Comparison) -> str:
    store, request = comparison.store, comparison.request
    trained = [one for variant in request.variants for one in request.trainings(variant)]
    weights = {one.recipe.backbone or "": path for one in trained if (path := one.request.weights) is not None}
    starts = [f"{name}, which start from {start_weights(path, name)}" for name, path in weights.items()]
    return (
        f"Test split of {store.path.parent.name}, {len(store.indices('test')):,} pairs of {store.window} px. F1, "
        "recall and precision of the class “changed”, from totals of pixels, at the threshold that the validation "
        f"split chose; “{HIGHEST}” is chosen on the test split itself, as the DASNet paper reports its own. ± is the "
        "standard deviation over seeds (divisor n − 1); a seed that failed has no part in a mean. "
        f"Networks start from random weights{', but for those of ' if starts else ''}{' and '.join(starts)}. "
        "Parameters are all that are trained, GFLOP a pair those of a prediction (SCCN computes both encoders for both "
        "dates, and needs half of it). pairs/s: pairs of windows a second, distances at full resolution in float32, "
        f"on {machine()}, {device()}, without reading. Methods without training have statistics of each split as a "
        "whole, so that what validation chooses is a multiple of their own threshold; their "
        "pairs/s are all passes with reading, in float64 on one thread of the CPU of whichever machine scored them."
    )


def _pictures(comparison: Comparison) -> dict[str, tuple[bytes, str]]:
    """Charts with their captions, by the name that they are shown under."""
    pictures = {}
    for name, rows in comparison.tables.items():
        points = {row.name: [result.confusion.f1 for result in row.results] for row in rows}
        chart = dots(points, x_label="F1 on the test split")
        pictures[f"{name}-f1"] = (chart, "F1 of every seed (dots) and their mean (bar)")
    if "margins" in comparison.tables:
        chart = margins_picture(comparison.request, comparison.tables["margins"])
        pictures["margins"] = (chart, "F1 over m1 and m2, as Figure 7")
    if (curves := comparison.curves) is not None:
        for one, other in (("season", "gain"), ("haze", "shift")):
            panels = {name: curves[name] for name in (one, other)}
            chart = lines(panels, x_label="", x_labels=[AXES[one], AXES[other]], y_labels=["F1 on the test split"] * 2)
            caption = "F1 against the strength of pseudo-changes drawn onto the test split, first seed of each"
            pictures[f"robustness-{one}-{other}"] = (chart, caption)
    return pictures


def _section(comparison: Comparison, name: TableName, pictures: Mapping[str, tuple[bytes, str]]) -> Section:
    rows, key = comparison.tables[name], "f1_at_own_threshold"
    own = [f"{row.name} {shown(*row.figures[key])}" for row in rows if key in row.figures]
    return Section(
        heading=comparison.heading(name),
        text=f"F1 at their own thresholds, without any label: {', '.join(own)}." if own else "",
        header=HEADER,
        rows=[row.cells() for row in rows],
        pictures=[pictures[key] for key in (f"{name}-f1", *(["margins"] if name == "margins" else []))],
    )


def margins_picture(request: CompareRequest, rows: Sequence[Row]) -> bytes:
    """Mean F1 over m1 (x) and m2 (y), PNG, of the rows of the table of margins."""
    variants = request.contents["margins"].variants
    by_margin = {
        (float(variant.changes["margin_unchanged"]), float(variant.changes["margin_changed"])): row
        for variant, row in zip(variants, rows, strict=True)
    }
    low, high = (sorted({margins[axis] for margins in by_margin}) for axis in (0, 1))
    values = np.array(
        [[by_margin[m1, m2].figures.get("f1", (np.nan, None))[0] for m1 in low] for m2 in high], dtype=np.float64
    )
    return heat(values, x=low, y=high, x_label="m1, unchanged", y_label="m2, changed", scale_label="F1")


def _different_versions(comparison: Comparison) -> list[str]:
    """A warning where what began the trainings is not of one version."""
    trainings: dict[str, list[str]] = {}
    for name in dict.fromkeys(result.name for result in comparison.results if result.seed is not None):
        described = TrainingDirectory(comparison.directory.trainings / name).describe() or {}
        versions = ", ".join(f"{library} {version}" for library, version in described.get("versions", {}).items())
        trainings.setdefault(versions, []).append(name)
    if len(trainings) < 2:
        return []
    listed = "; ".join(f"{', '.join(names)} by {versions}" for versions, names in trainings.items())
    return [f"trainings of different versions stand side by side: {listed}"]


def _settings(request: CompareRequest) -> list[Section]:
    """Settings of every training once, with the rows that it stands in."""
    rows: dict[str, list[str]] = {}
    for name, table in request.contents.items():
        for variant in table.variants:
            for one in request.trainings(variant)[:1]:
                settings = {key: value for key, value in one.recipe.settings().items() if key != "seed"}
                rows.setdefault(json.dumps(settings), []).append(f"{name}: {variant.name}")
    described = [f"{'; '.join(names)}\n{settings}" for settings, names in rows.items()]
    return [Section(heading="Recipes", preformatted="\n\n".join(described))] if described else []


def _side_by_side(comparison: Comparison) -> tuple[bytes | None, list[str]]:
    """Samples as the rows of the first table judge them, PNG or None; and what is missing in it and why."""
    store, (table, rows) = comparison.store, next(iter(comparison.tables.items()))
    chosen = few_of(store.changed("test"), _SHOWN)
    try:
        samples = store.read(chosen)
    except Exception as error:
        return None, [f"nothing is shown side by side: {reason_of(error)}"]
    called: dict[str, Sequence[np.ndarray]] = {}
    missing = []
    for variant, row in zip(comparison.request.contents[table].variants, rows, strict=True):
        try:
            if row.results and variant.is_trained:
                called[variant.name] = _called(comparison.bundle(row.results[0].name), samples)
            elif row.results:
                called[variant.name] = comparison.untrained[variant.method].called(samples)
        except Exception as error:
            # a device without memory, mostly
            missing.append(f"{variant.name} is not shown side by side: {reason_of(error)}")
    seen = [
        Seen(
            before=samples.before[n],
            after=samples.after[n],
            valid=samples.valid[n],
            label=samples.label[n],
            called=[of_method[n] for of_method in called.values()],
            notes=[f"F1 {Confusion.count(of_method[n], samples.label[n]).f1:.2f}" for of_method in called.values()],
            caption=f"{store.sources[index]}, row {store.positions()[index][0]}, column {store.positions()[index][1]}",
        )
        for n, index in enumerate(chosen)
    ]
    return side_by_side(seen, list(called), bands=store.bands), missing


def _called(bundle: Bundle, samples: Samples) -> Sequence[np.ndarray]:
    predictor = DasnetPredictor(bundle, device="auto", precision="float32")
    distances = predictor.distances(np.stack([samples.before, samples.after], axis=1), samples.valid)[:, 0]
    return list(distances >= bundle.cut)

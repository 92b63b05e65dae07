"""What a person should see of a comparison: tables with their spread, the same samples by every method, curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dasnet.metrics import Confusion
from dasnet.prediction.bundle import load_bundle
from dasnet.prediction.predictor import DasnetPredictor
from dasnet.training.pseudo_changes import AXES
from flows.comparison.cost import device
from flows.comparison.directory import ComparisonDirectory
from flows.comparison.request import CompareRequest
from flows.comparison.results import HEADER, HIGHEST, Row, results_csv, shown, tables_csv
from flows.comparison.robustness import StrengthCurves, robustness_csv
from flows.comparison.untrained import UntrainedScore
from flows.comparison.variants import TableName, Variant
from flows.run.artifacts import Picture, Table
from flows.run.errors import reason_of
from flows.run.machine import machine
from flows.run.observer import current_observer
from flows.training.directory import TrainingDirectory
from storage.datasets.store import DatasetStore, few_of
from storage.pages.charts import dots, heat, lines
from storage.pages.page import Page, Section, markdown_table, write_page
from storage.pages.side_by_side import Seen, side_by_side
from storage.places.publish import publish

_SHOWN = 6


def write_comparison(
    directory: ComparisonDirectory,
    *,
    request: CompareRequest,
    store: DatasetStore,
    tables: Mapping[TableName, Sequence[Row]],
    untrained: Mapping[str, UntrainedScore],
    curves: StrengthCurves | None,
    failed: Mapping[str, str],
) -> None:
    """Write tables as Markdown and CSV, and the page; show them to who watches."""
    pairs = f"{len(store.indices('test')):,} pairs of {store.window} px"
    explained = (
        f"Test split of {store.path.parent.name}, {pairs}. F1, "
        "recall and precision of the class “changed”, from totals of pixels, at the threshold that the validation "
        f"split chose; “{HIGHEST}” is chosen on the test split itself, as the DASNet paper reports its own. ± is the "
        "standard deviation over seeds (divisor n − 1); a seed that failed has no part in a mean. "
        f"{_beginnings(request)} "
        "Parameters are all that are trained, GFLOP a pair those of a prediction (SCCN computes both encoders for both "
        "dates, and needs half of it). pairs/s: pairs of windows a second, distances at full resolution in float32, "
        f"on {machine()}, {device()}, without reading. Methods without training have statistics of each split as a "
        "whole, so that what validation chooses is a multiple of their own threshold; their "
        "pairs/s are all passes with reading, in float64 on one thread of the CPU of whichever machine scored them."
    )
    codes = _codes(request, tables)
    warnings = [f"trainings of different versions stand side by side: {codes}"] if codes else []
    first = next(iter(tables))
    # the tables first: what cannot be drawn must not cost them
    markdown = "\n\n".join(
        f"### {_heading(request, name)}\n\n{markdown_table(HEADER, [row.cells() for row in rows])}"
        for name, rows in tables.items()
    )
    reasons = "".join(f"\n- {what} failed: {reason}" for what, reason in failed.items())
    _write(directory.tables, f"{explained}\n\n{markdown}\n{reasons}\n")
    _write(directory.tables_csv, tables_csv(tables.items()))
    _write(directory.results_csv, results_csv([one for rows in tables.values() for row in rows for one in row.results]))
    pictures = _pictures(request, tables, curves)
    seen, not_shown = _side_by_side(request, first, store, tables[first], untrained)
    if seen is not None:
        caption = "Test samples with change, drawn before any method saw them; the first seed of each"
        pictures["side-by-side"] = (seen, caption)
    for reason in not_shown:
        current_observer().warn(reason)
        warnings.append(reason)
    sections = [Section(heading="How to read this", text=explained)]
    sections += [_section(request, name, rows, pictures) for name, rows in tables.items()]
    if seen is not None:
        sections.append(Section(heading="Side by side", pictures=[pictures["side-by-side"]]))
    if curves is not None:
        _write(directory.robustness_csv, robustness_csv(curves))
        text = (
            "Every sample draws the same season, veil, light or shift for every method, weaker or stronger: season, "
            "veil and light of each date by itself, the shift of the second date alone. A shift moves what is new in "
            "the second date too, and not its label, so that a method without a fault loses F1 by it as well. Methods "
            "without training are fitted anew each time, to what they are judged on."
        )
        drawn = [picture for name, picture in pictures.items() if name.startswith("robustness")]
        sections.append(Section(heading="Robustness", text=text, pictures=drawn))
    sections += _settings(request)
    best = max((row for row in tables[first] if row.results), key=lambda row: row.figures["f1"][0], default=None)
    cards = [] if best is None else [("best F1", f"{best.figures['f1'][0]:.3f}", best.name)]
    cards += [
        ("rows", f"{sum(map(len, tables.values()))}", f"in {len(tables)} tables"),
        ("seeds", f"{request.seeds}", "of each trained method"),
        ("failed", f"{len(failed)}", "named above" if failed else "none"),
    ]
    write_page(
        directory.report,
        Page(
            title=f"Methods compared on {store.path.parent.name}",
            subtitle=f"dataset SHA-256 {store.digest}",
            cards=cards,
            warnings=warnings + [f"{what} failed: {reason}" for what, reason in failed.items()],
            sections=sections,
        ),
    )
    for name, rows in tables.items():
        header = ("row", *HEADER[1:])
        current_observer().show(
            Table(f"comparison-{name}", header, [row.cells() for row in rows], _heading(request, name))
        )
    for key, (picture, caption) in pictures.items():
        current_observer().show(Picture(key, picture, caption))


def _write(path: Path, text: str) -> None:
    with publish(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _beginnings(request: CompareRequest) -> str:
    given = [f"{name}, which start from {path.name}" for name, path in request.backbone_weights.items()]
    return f"Networks start from random weights{', but for those of ' if given else ''}{' and '.join(given)}."


def _heading(request: CompareRequest, name: TableName) -> str:
    table = request.contents[name]
    return f"{table.title} ({table.paper})"


def _pictures(
    request: CompareRequest, tables: Mapping[TableName, Sequence[Row]], curves: StrengthCurves | None
) -> dict[str, tuple[bytes, str]]:
    """Charts with their captions, by the name that Prefect shows them under."""
    found = {}
    for name, rows in tables.items():
        points = {row.name: [result.confusion.f1 for result in row.results] for row in rows}
        found[f"{name}-f1"] = (
            dots(points, x_label="F1 on the test split"),
            "F1 of every seed (dots) and their mean (bar)",
        )
    if "margins" in tables:
        found["margins"] = (margins_picture(request, tables["margins"]), "F1 over m1 and m2, as Figure 7")
    for one, other in (("season", "gain"), ("haze", "shift")) if curves is not None else ():
        assert curves is not None
        panels = {name: curves[name] for name in (one, other)}
        chart = lines(panels, x_label="", x_labels=[AXES[one], AXES[other]], y_labels=["F1 on the test split"] * 2)
        caption = "F1 against the strength of pseudo-changes drawn onto the test split, first seed of each"
        found[f"robustness-{one}-{other}"] = (chart, caption)
    return found


def _section(
    request: CompareRequest, name: TableName, rows: Sequence[Row], pictures: Mapping[str, tuple[bytes, str]]
) -> Section:
    own = [
        f"{row.name} {shown(*row.figures['f1_at_own_threshold'])}"
        for row in rows
        if "f1_at_own_threshold" in row.figures
    ]
    return Section(
        heading=_heading(request, name),
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


def _codes(request: CompareRequest, tables: Mapping[TableName, Sequence[Row]]) -> str:
    """Versions of what began the trainings, where they are not the same for all."""
    scored = {result.name for rows in tables.values() for row in rows for result in row.results}
    found: dict[str, list[str]] = {}
    for variant in request.variants:
        for one in request.trainings(variant):
            if one.key in scored:
                versions = (TrainingDirectory(one.request.output).describe() or {}).get("versions", {})
                of_version = found.setdefault(", ".join(f"{name} {v}" for name, v in versions.items()), [])
                of_version += [] if one.key in of_version else [one.key]
    return "" if len(found) < 2 else "; ".join(f"{', '.join(keys)} by {versions}" for versions, keys in found.items())


def _settings(request: CompareRequest) -> list[Section]:
    """Of every training once, with the rows that it stands in."""
    rows: dict[str, list[str]] = {}
    for name, table in request.contents.items():
        for variant in table.variants:
            for one in request.trainings(variant)[:1]:
                settings = {key: value for key, value in one.recipe.settings().items() if key != "seed"}
                rows.setdefault(json.dumps(settings), []).append(f"{name}: {variant.name}")
    described = [f"{'; '.join(names)}\n{settings}" for settings, names in rows.items()]
    return [Section(heading="Recipes", preformatted="\n\n".join(described))] if described else []


def _side_by_side(
    request: CompareRequest,
    table: TableName,
    store: DatasetStore,
    rows: Sequence[Row],
    untrained: Mapping[str, UntrainedScore],
) -> tuple[bytes | None, list[str]]:
    """The picture, None if there is none, and what is missing in it and why."""
    chosen = few_of(store.changed("test"), _SHOWN)
    try:
        samples = store.read(chosen)
    except Exception as error:
        return None, [f"nothing is shown side by side: {reason_of(error)}"]
    called: dict[str, Sequence[np.ndarray]] = {}
    missing = []
    for variant, row in zip(request.contents[table].variants, rows, strict=True):
        try:
            if row.results and variant.is_trained:
                called[variant.name] = _called(request, variant, row.results[0].name, store, chosen)
            elif row.results:
                called[variant.name] = untrained[variant.method].called(samples)
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


def _called(
    request: CompareRequest, variant: Variant, training: str, store: DatasetStore, chosen: Sequence[int]
) -> Sequence[np.ndarray]:
    (output,) = (one.request.output for one in request.trainings(variant) if one.key == training)
    bundle = load_bundle(TrainingDirectory(output).bundle)
    samples = store.read(chosen)
    predictor = DasnetPredictor(bundle, device="auto", precision="float32")
    distances = predictor.distances(np.stack([samples.before, samples.after], axis=1), samples.valid)[:, 0]
    return list(distances >= bundle.cut)

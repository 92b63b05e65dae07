"""What a person should see of a dataset before training on it: counts, pictures, and what looks wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dasnet.training.class_frequency import TABLE_HEADER, ClassFrequency, table_one
from flows.dataset.directory import DatasetDirectory
from flows.dataset.survey import Survey
from storage.datasets.cut import SampleFacts, near_duplicates
from storage.datasets.sharpness import SHARPNESS_HEADER, SplitSharpness, sharpness_table, sharpness_warnings
from storage.datasets.store import DatasetStore
from storage.pages.contact_sheet import Panel, contact_sheet
from storage.pages.page import Page, Section, write_page
from storage.places.publish import publish
from tiling.conventions import SPLITS

_PANELS = 24
_LISTED = 40


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """What came of preparing a dataset.

    Attributes:
        counts: samples and labelled pixels of each split.
        left_out: samples with too much nodata.
        suspicious: (what, samples it was seen in, an example) for each suspicion.
        labels: how the values of labels are read.
        warnings: what a person should look at in how labels are read, and how sharp the images are.
        sharpness: of each split and date.
        window: side of a sample, pixels.
    """

    store: Path
    report: Path
    contact_sheet: Path
    counts: Mapping[str, tuple[int, ClassFrequency]]
    left_out: int
    suspicious: Sequence[tuple[str, int, str]]
    labels: str
    warnings: Sequence[str]
    sharpness: Sequence[SplitSharpness]
    window: int

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        lines = [
            (name, f"{samples:,} samples, {frequency.share_changed:.2%} of the pixels changed")
            for name, (samples, frequency) in self.counts.items()
        ]
        lines.append(("left out", f"{self.left_out:,} windows with too much nodata"))
        lines.append(("labels", self.labels))
        if self.sharpness:
            lines.append(("sharpness", ", ".join(map(str, self.sharpness)) + " (median gradient / deviation)"))
        lines += [
            ("suspicious", f"{count:,} {what}, for example {example}") for what, count, example in self.suspicious
        ]
        return [*lines, ("dataset", str(self.store)), ("report", str(self.report))]


def write_dataset_report(
    directory: DatasetDirectory,
    store: DatasetStore,
    facts: Sequence[SampleFacts],
    *,
    survey: Survey,
    counts: Mapping[str, tuple[int, ClassFrequency]],
    sharpness: Sequence[SplitSharpness],
    names: Sequence[str],
) -> DatasetSummary:
    """Write the page and its picture.

    Args:
        facts: what is known of every sample of the store.
        survey: how labels are read.
        counts: samples and pixels of each split.
        sharpness: of each split and date.
        names: what the scenes are called.
    """
    suspicious = find_suspicious(store, facts)
    sheet = directory.contact_sheet
    with publish(sheet) as draft:
        draft.write_bytes(contact_sheet(_chosen(store, facts), bands=store.bands))
    left_out = sum(not fact.is_kept for fact in facts)
    total = sum((frequency for _, frequency in counts.values()), ClassFrequency(changed=0, unchanged=0))
    summary = DatasetSummary(
        store=store.path,
        report=directory.report,
        contact_sheet=sheet,
        counts=counts,
        left_out=left_out,
        suspicious=[(what, len(samples), samples[0]) for what, samples in suspicious.items() if samples],
        labels="polygons, changed inside" if survey.rule is None else str(survey.rule),
        warnings=[
            *(() if survey.rule is None else survey.rule.warnings),
            *survey.notes,
            *sharpness_warnings(sharpness),
        ],
        sharpness=sharpness,
        window=store.window,
    )
    sections = [
        Section(heading="Labelled pixels by class (Table I)", header=TABLE_HEADER, rows=table_one(counts)),
        Section(
            heading="Sharpness: gradient from pixel to pixel",
            header=SHARPNESS_HEADER,
            rows=sharpness_table(sharpness),
        ),
        Section(heading="Samples", pictures=[(sheet.read_bytes(), "Before, after and label: yellow = changed")]),
    ]
    sections += [
        Section(
            heading=f"Suspicious: {what} ({len(samples):,})",
            header=("sample",),
            rows=[[name] for name in samples[:_LISTED]] + ([["…"]] if len(samples) > _LISTED else []),
        )
        for what, samples in suspicious.items()
        if samples
    ]
    write_page(
        summary.report,
        Page(
            title=directory.path.resolve().name,
            subtitle=f"{len(names):,} scenes; bands {', '.join(store.bands)}, {store.dtype}; labels: {summary.labels}; "
            f"SHA-256 {store.digest}",
            cards=[
                ("samples", f"{len(facts) - left_out:,}", f"of {store.window} × {store.window} px"),
                ("changed", f"{total.share_changed:.2%}", "of the labelled pixels"),
                ("left out", f"{left_out:,}", "windows with too much nodata"),
                ("suspicious", f"{sum(len(samples) for samples in suspicious.values()):,}", "see below"),
            ],
            warnings=[
                *summary.warnings[:_LISTED],
                *[f"{len(samples):,} {what}" for what, samples in suspicious.items() if samples],
            ],
            sections=sections,
        ),
    )
    return summary


def find_suspicious(store: DatasetStore, facts: Sequence[SampleFacts]) -> dict[str, list[str]]:
    """Samples that look wrong, by what is wrong with them."""
    names, positions = store.sources, store.positions()

    def name(index: int) -> str:
        return f"{names[index]} at row {positions[index][0]}, column {positions[index][1]}"

    usable = [index for index, fact in enumerate(facts) if fact.is_kept]
    twins = near_duplicates([fact.hashes for fact in facts], store.splits.tolist())
    return {
        "samples all of whose labelled pixels are changed": [
            name(i) for i in usable if facts[i].changed and not facts[i].unchanged
        ],
        "samples whose two dates are the same picture": [name(i) for i in usable if facts[i].same],
        "near-duplicates across splits": [
            f"{SPLITS[store.splits[one]]}: {name(one)} and {SPLITS[store.splits[other]]}: {name(other)}"
            for one, other in twins
        ],
    }


def _chosen(store: DatasetStore, facts: Sequence[SampleFacts]) -> list[Panel]:
    """Samples of all splits, most of them with a change in them."""
    order = random.Random(0)
    panels = []
    for number, split in enumerate(SPLITS):
        usable = np.flatnonzero(store.splits == number).tolist()
        changed = [i for i in usable if facts[i].changed]
        unchanged = [i for i in usable if not facts[i].changed]
        count = _PANELS // 2 if split == "train" else _PANELS // 4
        order.shuffle(changed)
        order.shuffle(unchanged)
        share = max(count - 2, 1)
        for index in (changed[:share] + unchanged)[:count] or usable[:count]:
            samples = store.read([index])
            panels.append(
                Panel(
                    before=samples.before[0],
                    after=samples.after[0],
                    valid=samples.valid[0],
                    label=samples.label[0],
                    caption=f"{split}: {store.sources[index]}, row {store.positions()[index][0]}, "
                    f"column {store.positions()[index][1]}, {facts[index].changed / store.window**2:.1%} changed",
                )
            )
    return panels

"""The last two stages of a run: the mosaic, and what a person opens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.cluster.stage import ConnectCluster
from flows.detect.directory import PRODUCTS
from flows.detect.first_pass_outcome import FirstPassOutcome
from flows.detect.job import Job
from flows.detect.statistics_progress import read_progress
from flows.inference.lost_images import stored_images
from flows.inference.pair_products import QUICKLOOK, PairProducts
from flows.inference.plate_stage import STAGE, PairPlates, PlateMakers, PlateStage
from flows.inference.product_ledger import ProductLedger
from flows.inference.verify import REASON, BlockVerifier
from flows.run.artifacts import Picture, products_page
from flows.run.directory import RunDirectory
from flows.run.observer import current_observer, step
from flows.run.versions import versions
from storage.pages.page import area_words
from storage.pages.run_report import ReportData, disagreement_summary, write_report
from storage.places.bucket import Location
from storage.reference_systems import crs_name
from storage.stores.run_store import RunStore
from tiling.conventions import NODATA, PASSED_OVER, changed_level
from tiling.grid import Box
from tiling.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came of a run.

    Attributes:
        products: path of each product.
        polygons, changed_m2: number of changed areas, and their ground area in square metres.
        changed_share, nodata_share: share of the valid pixels, and of all pixels, 0 … 1.
        disagreement: mean and 95th percentile of the standard deviation between overlapping windows.
        first_pass: what the network did not look at, for a person; empty where it looked at everything.
    """

    products: dict[str, Location]
    polygons: int
    changed_m2: float
    changed_share: float
    nodata_share: float
    disagreement: tuple[float, float]
    first_pass: str = ""

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person."""
        return [
            (
                "changed",
                f"{area_words(self.changed_m2)} in {self.polygons:,} places, {self.changed_share:.2%} of what is valid",
            ),
            ("nodata", f"{self.nodata_share:.2%}"),
            *([("first pass", self.first_pass)] if self.first_pass else []),
            *((name, str(path)) for name, path in self.products.items()),
        ]


def pair_products(job: Job, directory: RunDirectory[Location], cluster: ConnectCluster) -> PairProducts:
    """What makes the products of a run; `cluster`: whose workers make what they are joined from."""
    ledger, store = directory.ledger("infer"), RunStore(directory.store)
    verifier = BlockVerifier(
        job.blocks,
        Box(y0=0, y1=job.grid.height, x0=0, x1=job.grid.width),
        expected=lambda block: str(ledger.entry(block).facts["digest"]),
        set_back=partial(ledger.forget, reason=REASON),
    )
    return PairProducts(
        ProductLedger(directory, PRODUCTS),
        PairPlates(name="", reader=store, place=directory.plates, verifier=verifier),
        PlateStage(
            ledger=directory.ledger(STAGE),
            directory=directory.path,
            makers=PlateMakers(
                cluster=cluster,
                effort=job.effort,
                threshold=job.bundle.threshold,
                min_area_m2=job.request.min_area,
            ),
        ),
        stored=lambda: stored_images(job, ((date, block.index) for block in job.blocks for date in job.dates), store),
        ingested=partial(directory.ledger, "ingest"),
    )


def make_products(job: Job, directory: RunDirectory[Location], pair: PairProducts) -> Summary:
    """Make the products that do not stand yet, and show them to the observer."""
    observer = current_observer()
    products = pair.products
    tags = {"PASSED_OVER": f"{PASSED_OVER}", "FIRST_PASS": job.first_pass.rule.words} if job.first_pass else None
    observer.begin("mosaic", 1, unit="file")
    mosaic = observer.step("mosaic", "mosaic", lambda: pair.make_probability({}, tags))
    observer.end(f"{mosaic['valid_pixels']:,} valid pixels, SHA-256 {mosaic['pixels_sha256'][:12]}…")
    observer.begin("products", 4, unit="files")
    summary = _make_rest(job, directory, products, pair, mosaic)
    observer.end(", ".join(path.name for path in summary.products.values()))
    pair.remove_parts()
    directory.ledger(STAGE).remove()
    directory.update(state="finished")
    return summary


@step("products")
def _make_rest(
    job: Job,
    directory: RunDirectory[Location],
    products: ProductLedger[Location],
    pair: PairProducts,
    mosaic: dict[str, Any],
) -> Summary:
    threshold = job.bundle.threshold
    parameters = {"threshold": threshold, "min_area": job.request.min_area, "mosaic": mosaic["pixels_sha256"]}
    polygons = pair.make_changes(parameters)
    pair.make_quicklook(parameters, captions=(_dated(job, 0), _dated(job, 1), "change probability"))
    statistics = BlockStatistics.of(directory.ledger("infer"))
    histogram = np.array(mosaic["histogram"])
    first_pass = FirstPassOutcome.of(directory, histogram) if job.first_pass else None
    valid = int(histogram[:NODATA].sum())
    changed = int(histogram[changed_level(threshold) : NODATA].sum())
    summary = Summary(
        products={name: products.path(name) for name in PRODUCTS},
        polygons=polygons["count"],
        changed_m2=polygons["area_m2"],
        changed_share=changed / max(valid, 1),
        nodata_share=1 - valid / job.plan.pixels,
        disagreement=disagreement_summary(statistics.disagreement),
        first_pass=first_pass.words if first_pass else "",
    )

    record = directory.describe() or {}
    products.make(
        "report",
        lambda path: write_report(
            path, _report_data(job, directory, record, pair.looks, summary, statistics, mosaic, first_pass)
        ),
        parameters=parameters,
    )
    pair.make_item(
        parameters,
        item_id=f"change-{record['key'][:16]}",
        grid=job.grid,
        start=job.times[0],
        end=job.times[-1],
        provenance={
            "run_key": record["key"],
            "inputs": record["files"],
            "bundle": {"name": job.request.bundle, "sha256": job.bundle.digest},
            "threshold": threshold,
            **({"statistics": dict(_statistics(directory))} if job.method else {}),
            **({"first_pass": first_pass.facts} if first_pass else {}),
            "parameters": job.parameters,
            "execution": record.get("execution", {}),
            "dates_known": job.dates_known,
        },
        made_by=job.bundle.source,
    )
    observer = current_observer()
    observer.show(Picture("quicklook", products.path("quicklook").read_bytes(), QUICKLOOK))
    observer.show(
        products_page(
            [(name, path, products.digest(name)) for name, path in summary.products.items()],
            f"{area_words(summary.changed_m2)} changed in {summary.polygons:,} places; "
            f"{summary.nodata_share:.2%} nodata.",
        )
    )
    return summary


def _dated(job: Job, date: int) -> str:
    name = Path(job.mosaics[date].label.rstrip("/")).name
    return f"{name}, {job.times[date]:%Y-%m-%d}" if job.dates_known else name


def _report_data(
    job: Job,
    directory: RunDirectory[Location],
    record: Mapping[str, Any],
    looks: Any,
    summary: Summary,
    statistics: BlockStatistics,
    mosaic: dict[str, Any],
    first_pass: FirstPassOutcome | None,
) -> ReportData:
    """What the page says; `record`: the content of ``run.json``."""
    seconds = record.get("seconds", {})
    rate = job.plan.pixels / seconds["infer"] / 1e6 if seconds.get("infer") else 0.0
    total = max(sum(statistics.seconds.values()), 1e-9)
    return ReportData(
        title=f"Change from {_dated(job, 0)} to {_dated(job, 1)}",
        subtitle=f"Run {record['key'][:12]}, {job.grid.width:,} × {job.grid.height:,} px in {crs_name(job.grid.crs)}, "
        f"{job.bundle.kind} {job.request.bundle}",
        looks=looks,
        before_label=_dated(job, 0),
        after_label=_dated(job, 1),
        cards=[
            ("Changed area", area_words(summary.changed_m2), f"{summary.changed_share:.2%} of what is valid"),
            ("Places", f"{summary.polygons:,}", f"polygons at a probability of {job.bundle.threshold:.3f} or more"),
            ("Nodata", f"{summary.nodata_share:.2%}", "of all pixels, where an input has none"),
            *([first_pass.card] if first_pass else []),
            _how_sure(job, directory, summary),
            ("Blocks", f"{len(job.blocks):,}", f"{statistics.skipped_blocks:,} of them without a valid pixel"),
            ("Infer", f"{rate:.2f} Mpx/s", f"{statistics.windows:,} windows of {job.lattice.window} px"),
        ],
        warnings=job.warnings,
        tables={
            "Inputs": [
                (path, f"SHA-256 {digest}") for files in record["files"].values() for path, digest in files.items()
            ],
            "Time": [
                *((stage, f"{duration:,.1f} s") for stage, duration in seconds.items()),
                *(
                    (f"infer: {what}", f"{duration / total:.1%} of the workers' time")
                    for what, duration in statistics.seconds.items()
                ),
            ],
            "Parameters": [(name, str(value)) for name, value in job.parameters.items()],
            **({"Statistics": _statistics(directory)} if job.method else {}),
            **({"First pass": first_pass.rows} if first_pass else {}),
            "Arithmetic": [(name, str(value)) for name, value in record.get("execution", {}).items()],
            job.bundle.kind.capitalize(): [
                ("name", job.request.bundle),
                ("SHA-256", job.bundle.digest),
                ("threshold", f"{job.bundle.threshold:.4f}"),
                ("bands", ", ".join(job.bundle.band_names)),
            ],
            "Versions": list(versions().items()),
        },
        histogram=mosaic["histogram"],
        threshold=job.bundle.threshold,
        card=job.bundle.card,
    )


def _how_sure(job: Job, directory: RunDirectory[Location], summary: Summary) -> tuple[str, str, str]:
    if job.method:
        figure, _, origin = read_progress(directory).threshold.partition(", ")
        return "Threshold", figure, origin
    mean, high = summary.disagreement
    return "Windows disagree by", f"{mean:.3f}", f"standard deviation where they overlap; 95 % below {high:.3f}"


def _statistics(directory: RunDirectory[Location]) -> list[tuple[str, str]]:
    progress = read_progress(directory)
    return [
        *((f"pass {number}", note) for number, note in enumerate(progress.state.notes, start=1)),
        ("threshold of the statistic", progress.threshold),
    ]


@dataclass(frozen=True, kw_only=True)
class BlockStatistics:
    """Sums over the blocks of a run, from its ledger: windows, seconds, and how far windows disagree."""

    windows: int
    skipped_blocks: int
    seconds: dict[str, float]
    disagreement: NDArray[np.int64]

    @classmethod
    def of(cls, ledger: Ledger) -> BlockStatistics:
        windows = skipped_blocks = 0
        seconds: Counter[str] = Counter()
        disagreement = np.zeros(256, dtype=np.int64)
        for entry in ledger.entries("done"):
            facts = entry.facts
            windows += facts["windows"]
            skipped_blocks += facts["windows"] == 0
            for name in ("read_s", "wait_s", "compute_s", "write_s"):
                seconds[name.removesuffix("_s")] += facts[name]
            for bin, count in facts["disagreement"].items():
                disagreement[int(bin)] += count
        return cls(windows=windows, skipped_blocks=skipped_blocks, seconds=dict(seconds), disagreement=disagreement)

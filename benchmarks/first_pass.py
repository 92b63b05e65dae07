"""What does a first pass cost in recall, and what does it save? Change of water on NAIP, buildings on LEVIR.

    python -m benchmarks.first_pass --data FOLDER --bundle water-extent --work FOLDER --result FILE.md

FOLDER of the data has naip/ and levir/ as the project's real imagery is kept. Of every pair one run computes
everything, and one for each method looks at all cells and computes one. What a share leaves is then read off by the
same rule; some shares of one method are run as a user runs them, for their time, and to see that levels are as
expected. On LEVIR the cells alone are looked at, against the labels: no network is needed for that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject

from benchmarks.common import machine
from benchmarks.levir_mosaic import lay_out
from flows.cluster.config import ClusterConfig
from flows.detect.first_pass import choice_of, statistics_of
from flows.detect.first_pass_rule import OF_IMAGERY, FirstPassRule
from flows.detect.job import Job, resolve
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from flows.run.directory import RunDirectory
from storage.stores.run_store import RunStore
from tiling.chosen import ChosenCells
from tiling.conventions import IGNORED, NODATA, changed_level
from tiling.grid import Box

_DATES = (("20140720", "20150926"), ("20160816", "20170827"))
_SHARES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)
_TIMED = (0.5, 0.2)
_LEGEND = (
    "Cells of 128 px, judged at a quarter of the resolution; a chosen cell brings every window that touches it. "
    "*Windows*: share of them that is computed: the rest is what a first pass saves. *Pixels*: share of those "
    "whose windows were all computed, so that they have the value of a run that computes everything. *Labelled "
    "change*: share of the changed pixels that lies there, which no network can exceed. *Recall kept*: of what "
    "the network finds when it computes everything. A first pass that knew nothing would keep its share of "
    "pixels. Seconds are those of a machine that others used too."
)
_HEAD = (
    "| share of cells | windows | pixels | labelled change | recall of the network | recall kept | precision |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One pair and what changed in it.

    Attributes:
        options: of the request beside the two mosaics.
        label: (h, w) on the run's grid: 1 = changed, 0 = unchanged, 255 = not known.
    """

    title: str
    before: Path
    after: Path
    options: dict[str, Any]
    label: NDArray[np.uint8]

    def request(self, work: Path, name: str, **changes: Any) -> DetectRequest:
        values = {"before": str(self.before), "after": str(self.after), "output": work / name, **self.options}
        return DetectRequest.model_validate({**values, "cluster": ClusterConfig(workers=1, lanes=1), **changes})


def on_grid(path: Path, job: Job) -> NDArray[np.uint8]:
    """A raster of classes on the grid of a run, by the nearest pixel; 255 where there is none."""
    grid = job.grid
    result = np.full(grid.shape, IGNORED, dtype=np.uint8)
    with rasterio.open(path) as file:
        reproject(
            file.read(1),
            result,
            src_transform=file.transform,
            src_crs=file.crs,
            src_nodata=IGNORED,
            dst_transform=grid.affine,
            dst_crs=str(grid.crs),
            dst_nodata=IGNORED,
            resampling=Resampling.nearest,
        )
    return result


def water(data: Path, dates: tuple[str, str], work: Path, bundle: str) -> Scene:
    """Change of open water between two dates of NAIP."""
    before, after = (data / "naip" / f"m_4709963_se_14_1_{date}.tif" for date in dates)
    scene = Scene(
        title=f"water, NAIP {dates[0]} – {dates[1]}",
        before=before,
        after=after,
        options={"bundle": bundle, "bands": [1, 2, 3], "block": 512},
        label=np.zeros((0, 0), dtype=np.uint8),
    )
    job = resolve(scene.request(work, "unused"))
    first, second = (on_grid(data / "naip" / f"water_{date}.tif", job) for date in dates)
    label = np.where((first == IGNORED) | (second == IGNORED), IGNORED, first != second).astype(np.uint8)
    return replace(scene, label=label)


def buildings(data: Path, work: Path) -> Scene:
    """Change of buildings in the native scenes of LEVIR, laid side by side, at 1 m."""
    paths = lay_out(data / "levir", work)
    scene = Scene(
        title="buildings, LEVIR's twelve native scenes at 1 m",
        before=paths["before"],
        after=paths["after"],
        options={"bundle": "synthetic", "grid": {"resolution": 1.0}, "resampling": "average", "block": 512},
        label=np.zeros((0, 0), dtype=np.uint8),
    )
    label = on_grid(paths["label"], resolve(scene.request(work, "unused")))
    return replace(scene, label=np.where(label > 0, 1, 0).astype(np.uint8))


def levels_of(directory: Path) -> NDArray[np.uint8]:
    store = RunStore(directory / "run.zarr")
    return store.read_probability(rows=slice(0, store.height), cols=slice(0, store.width))


def as_pixels(job: Job, cells: ChosenCells) -> NDArray[np.bool_]:
    """(h, w) of the grid: what is computed by all its windows."""
    everything = Box(y0=0, y1=job.grid.height, x0=0, x1=job.grid.width)
    within = job.lattice.read_box(everything)
    inner = everything.relative_to(within)
    return cells.part_of(job.lattice, everything, within=within)[1][inner.rows, inner.cols]


def windows_of(job: Job, cells: ChosenCells | None) -> int:
    """Windows over all blocks, those of the edges once for each block that they touch."""
    total = 0
    for block in job.blocks:
        origins = job.lattice.origins_touching(block.box)
        total += len(origins) if cells is None else int(cells.touched_by(origins, job.lattice.window).sum())
    return total


def looked_at(scene: Scene, work: Path, method: str) -> tuple[Job, NDArray[np.float64], float]:
    """A run that looks at all cells and computes one: job, statistics of the cells, seconds of the first pass."""
    request = scene.request(work, f"look-{method}", first_pass=f"{method}:0.001%")
    run_detection(request)
    job, directory = resolve(request), RunDirectory(request.output)
    assert job.first_pass is not None
    return job, statistics_of(job.first_pass, directory), (directory.describe() or {})["seconds"]["first-pass"]


def rows(
    job: Job, statistics: NDArray[np.float64], scene: Scene, full: NDArray[np.uint8] | None, method: str
) -> list[str]:
    """A row of the table for each share."""
    plan, lines = job.first_pass, []
    assert plan is not None
    known, changed = scene.label != IGNORED, scene.label == 1
    everything = windows_of(job, None)
    for share in _SHARES:
        rule = FirstPassRule(method=method, share=share)
        cells = choice_of(replace(plan, rule=rule), statistics).cells
        inside = as_pixels(job, cells)
        held = (changed & inside).sum() / changed.sum()
        figures = ["–"] * 3
        if full is not None:
            predicted = (full >= changed_level(job.bundle.threshold)) & (full != NODATA) & known
            kept = predicted & inside
            whole, part = (predicted & changed).sum(), (kept & changed).sum()
            figures = [
                f"{part / changed.sum():.3f}",
                f"{part / max(whole, 1):.1%}",
                f"{part / max(kept.sum(), 1):.3f}",
            ]
        lines.append(
            f"| {share:.0%} | {windows_of(job, cells) / everything:.1%} | {inside.mean():.1%} | {held:.1%} | "
            f"{' | '.join(figures)} |"
        )
    return lines


def timed(scene: Scene, work: Path, method: str, full: NDArray[np.uint8], seconds: float) -> list[str]:
    """A row for each share that is run: the time it takes, and whether its levels are those of the whole run."""
    lines = [
        "| run | first pass, s | infer, s | both against everything | levels where computed |",
        "| --- | --- | --- | --- | --- |",
        f"| everything | – | {seconds:.1f} | 100 % | – |",
    ]
    for share in _TIMED:
        request = scene.request(work, f"{method}-{share:g}", first_pass=f"{method}:{100 * share:g}%")
        run_detection(request)
        record = json.loads((request.output / "run.json").read_text())["seconds"]
        cells = ChosenCells.from_dict(json.loads((request.output / "first_pass.json").read_text())["chosen"])
        part, inside = levels_of(request.output), as_pixels(resolve(request), cells) & (full != NODATA)
        alike = bool((part[inside] == np.maximum(full[inside], 1)).all())
        spent = record["first-pass"] + record["infer"]
        lines.append(
            f"| {method}:{share:.0%} | {record['first-pass']:.1f} | {record['infer']:.1f} | {spent / seconds:.0%} | "
            f"{'equal' if alike else 'NOT EQUAL'} |"
        )
    return lines


def section(scene: Scene, work: Path, methods: Sequence[str], *, with_network: bool) -> list[str]:
    """What one pair shows."""
    work.mkdir(parents=True, exist_ok=True)
    known = scene.label != IGNORED
    lines = [
        f"## {scene.title}",
        "",
        f"{(scene.label == 1).sum() / known.sum():.2%} of the labelled pixels change.",
        "",
    ]
    full, seconds = None, 0.0
    if with_network:
        request = scene.request(work, "everything")
        run_detection(request)
        full = levels_of(request.output)
        seconds = json.loads((request.output / "run.json").read_text())["seconds"]["infer"]
    for method in methods:
        job, statistics, spent = looked_at(scene, work, method)
        lines += [f"### {method} ({spent:.1f} s)", "", _HEAD, *rows(job, statistics, scene, full, method), ""]
    if full is not None:
        lines += ["### Time", "", *timed(scene, work, methods[0], full, seconds), ""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", default="water-extent")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(OF_IMAGERY))
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    lines = [
        "# A first pass: what it costs in recall, and what it saves",
        "",
        f"`benchmarks.first_pass`, methods {arguments.methods}, bundle {arguments.bundle}, one lane, {machine()}. "
        f"{_LEGEND}",
        "",
    ]
    for dates in _DATES:
        work = arguments.work / f"water-{dates[0]}"
        scene = water(arguments.data, dates, work, arguments.bundle)
        lines += section(scene, work, methods, with_network=True)
    work = arguments.work / "buildings"
    work.mkdir(parents=True, exist_ok=True)
    lines += section(buildings(arguments.data, work), work, methods, with_network=False)
    arguments.result.write_text("\n".join(lines).rstrip() + "\n")
    print(arguments.result)


if __name__ == "__main__":
    main()

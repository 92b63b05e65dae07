"""The tasks whose accuracy is published: where their imagery lies, how it is prepared, what is scored of them.

Nothing here trains or scores: see :mod:`benchmarks.accuracy`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from benchmarks.levir_mosaic import lay_out
from dasnet.prediction.bundle import load_bundle
from scripts.synthetic_scenes import SEEDS, draw_scene
from scripts.water_extent import write_table
from tiling.conventions import IGNORED

WET_DATES = ("20140720", "20150926", "20160816", "20170827", "20190904")
"""NAIP dates with a water mask after the dry year 2009; two that follow each other make a pair."""

_TEST_COLUMNS = 0.7
"""Share of the width at which the water task's test columns begin."""


@dataclass(frozen=True, kw_only=True)
class LabelledMosaic:
    """Two dates of a whole place and what changed between them.

    Attributes:
        label: raster, 1 = changed, 0 = unchanged, 255 = not scored.
        is_partial: only a part of the label is scored, which must be said.
        options: of `detect`, beside the two dates.
    """

    name: str
    before: Path
    after: Path
    label: Path
    is_partial: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def prepare_commands(task: str, data: Path, work: Path) -> list[list[str]]:
    """Words after ``python -m`` that make the dataset of a task in ``work/task/data``, one after another."""
    place = work / task
    if task == "levir":
        made = [["flows", "prepare", str(data / "levir-1m"), "--resolution", "1.0"]]
    elif task == "water":
        made = [["flows", "prepare", str(place / "water.csv"), "--window", "128", "--stride", "64", "--bands", "1,2,3"]]
        made[0] += ["--band-names", "red,green,blue", "--split", "columns:0.6,0.7", "--grid-resolution", "5"]
    else:
        table = str(place / "scenes" / "scenes.csv")
        made = [
            ["scripts.synthetic_scenes", str(place / "scenes")],
            ["flows", "prepare", table, "--band-names", "red,green,blue"],
        ]
    made[-1] += ["--output", str(place / "data")]
    return made


def before_prepare(task: str, data: Path, work: Path) -> None:
    """What the commands of a task need to find."""
    (work / task).mkdir(parents=True, exist_ok=True)
    if task == "water":
        write_table(data / "naip", work / task / "water.csv")


def test_mosaics(task: str, data: Path, work: Path, bundle: str) -> list[LabelledMosaic]:
    """The whole mosaics on which a bundle of a task is tested, laid out in ``work/task/mosaics``.

    LEVIR's native scenes (0.5 m) side by side, for `detect` to bring to the bundle's resolution; the four pairs of wet
    years that follow each other in the archive, labelled in the test columns alone; the four synthetic test scenes.
    """
    place = work / task / "mosaics"
    place.mkdir(parents=True, exist_ok=True)
    if task == "levir":
        paths = lay_out(data / "levir", place)
        options = {"grid": {"resolution": load_bundle(bundle).resolution or 1.0}, "resampling": "average"}
        return [LabelledMosaic(name="native scenes", **paths, options=options)]
    if task == "water":
        return [_wet_pair(data / "naip", place, *pair) for pair in pairwise(WET_DATES)]
    rows = [draw_scene(place, "test", number, side=2048) for number in range(len(SEEDS["test"]))]
    return [
        LabelledMosaic(name=row[0], before=place / row[1], after=place / row[2], label=place / row[3]) for row in rows
    ]


def _wet_pair(naip: Path, place: Path, first: str, second: str) -> LabelledMosaic:
    """A pair of dates whose label says where their water masks differ, on the first date's grid, by nearest pixels."""
    before, after = (naip / f"m_4709963_se_14_1_{date}.tif" for date in (first, second))
    with rasterio.open(before) as image:
        profile = {"height": image.height, "width": image.width, "crs": image.crs, "transform": image.transform}
    masks = []
    for date in (first, second):
        with (
            rasterio.open(naip / f"water_{date}.tif") as mask,
            WarpedVRT(mask, resampling=Resampling.nearest, nodata=IGNORED, **profile) as on_grid,
        ):
            masks.append(on_grid.read(1))
    one, other = masks
    label = np.where((one == IGNORED) | (other == IGNORED), IGNORED, one != other).astype(np.uint8)
    label[:, : round(_TEST_COLUMNS * label.shape[1])] = IGNORED
    path = place / f"change_{first}_{second}.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, dtype="uint8", nodata=IGNORED, compress="deflate", **profile
    ) as file:
        file.write(label, 1)
    options = {"bands": (1, 2, 3)}
    name = f"{first}-{second}"
    return LabelledMosaic(name=name, before=before, after=after, label=path, is_partial=True, options=options)

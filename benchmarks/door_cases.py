"""Cases of `make.py` about one raster, each tried as a user would; oracles read the files with rasterio or numpy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio

from benchmarks.door_desk import DATES, Desk, Verdict, judged, pixels_of, refusal, right, same, wrong

Case = Callable[[Desk, Path], Verdict]
CASES: dict[str, Case] = {}

BEFORE, AFTER = "before_20190601.tif", "after_20210601.tif"


def case(function: Case) -> Case:
    """Decorator: the case has the function's name."""
    CASES[function.__name__.replace("_", "-")] = function
    return function


# what a band is


@case
def rgbn_taken_for_rgba(desk: Desk, folder: Path) -> Verdict:
    truth = pixels_of(folder / AFTER)
    plain = desk.detect(folder / BEFORE, folder / AFTER)
    if plain.is_done and not plain.valid.all():
        return wrong(f"{plain.valid[1].mean():.0%} of the pixels are valid, though none is nodata")
    if not plain.is_done and (question := refusal(plain.ended, "alpha", "infrared", "--bands")).kind == "wrong":
        return question
    named = desk.detect(folder / BEFORE, folder / AFTER, "--bands", "4,1,2")
    holds, seen = same(named, truth[[3, 0, 1]])
    how = "all pixels are valid" if plain.is_done else "asked which of both it is"
    return judged(holds, f"{how}; --bands 4,1,2 reads bands 4, 1, 2", seen)


@case
def descriptions_against_default_colours(desk: Desk, folder: Path) -> Verdict:
    run = desk.detect(folder / BEFORE, folder / AFTER)
    holds, seen = same(run, pixels_of(folder / AFTER)[[2, 1, 0]])
    return judged(holds, "red is the band that is described as red", seen)


@case
def palette(desk: Desk, folder: Path) -> Verdict:
    run = desk.detect(folder / BEFORE, folder / AFTER)
    if run.ended.code == 2:
        return refusal(run.ended, BEFORE, ("palette", "colour map", "color map"))
    index = pixels_of(folder / AFTER)[0]
    holds, seen = same(run, np.stack([index, 255 - index, np.full_like(index, 7)]))
    return judged(holds, "the colours of the palette", seen)


@case
def one_file_a_band(desk: Desk, folder: Path) -> Verdict:
    run = desk.detect(folder / "before", folder / "after", *DATES)
    if run.ended.code == 2:
        return refusal(run.ended, "B02", "band")
    bands = [pixels_of(next((folder / "after").glob(f"*{name}*")))[0] for name in ("B04", "B03", "B02")]
    holds, seen = same(run, np.stack(bands))
    return judged(holds, "B04, B03, B02 are red, green, blue", seen)


@case
def alpha_as_fifth_band(desk: Desk, folder: Path) -> Verdict:
    run = desk.detect(folder / BEFORE, folder / AFTER, "--bands", "1,2,3")
    if run.ended.code == 2:
        return refusal(run.ended, "alpha")
    truth = pixels_of(folder / AFTER)
    holds, seen = same(run, truth[:3], valid=truth[4] > 0)
    return judged(holds, "61 % are valid, by the fifth band", seen)


# which pixels count, and what a value is


@case
def nodata_in_one_band(desk: Desk, folder: Path) -> Verdict:
    options = ("--bundle", desk.bundle("float32"), "--bands", "1,2,3")
    run = desk.detect(folder / BEFORE, folder / AFTER, *options)
    truth = pixels_of(folder / AFTER)
    holds, seen = same(run, truth, valid=(truth != -9999).all(axis=0))
    if not holds:
        return wrong(seen)
    coarse = desk.detect(folder / BEFORE, folder / AFTER, *options, "--resolution", "15")
    values = coarse.images[1][:, coarse.valid[1]] if coarse.is_done else np.array([-9999.0])
    return judged(bool(values.min() >= 20), "no valid pixel is below 20, resampled or not", f"{coarse}, {values.min()}")


@case
def scale_and_offset(desk: Desk, folder: Path) -> Verdict:
    options = ("--bundle", desk.bundle("uint16"), "--bands", "1,2,3", *DATES)
    before, after = folder / BEFORE, folder / "after_20230601.tif"
    twin = Path(shutil.copy(before, folder / "twin.tif"))
    run = desk.detect(before, after, *options)
    if run.ended.code == 2:
        return refusal(run.ended, BEFORE, "offset", "-0.1")
    equal = desk.detect(before, twin, *options)
    if not (run.is_done and equal.is_done):
        return wrong(f"{run}; {equal}")
    most = int(np.abs(run.probability.astype(int) - equal.probability).max())
    return judged(most == 0, "the same bytes as of two equal files", f"levels differ by up to {most}")


@case
def other_types(desk: Desk, folder: Path) -> Verdict:
    read = []
    for dtype in ("int16", "int32", "uint32", "float64", "int8"):
        path = folder / f"{dtype}_20190601.tif"
        run = desk.detect(path, path, *DATES)
        holds, seen = same(run, pixels_of(path))
        if not holds:
            return wrong(f"{dtype}: {seen}")
        read.append(dtype)
    return right(f"{', '.join(read)} have the values of the file")


@case
def zarr_with_a_lost_chunk(desk: Desk, folder: Path) -> Verdict:
    run = desk.detect(folder / "before.zarr", folder / "after.zarr", *DATES)
    if run.ended.code == 2:
        return refusal(run.ended, "after.zarr", ("c/0/1/1", "0.1.1", "chunk"))
    if run.ended.code == 1:
        names_it = "after.zarr" in run.ended.said and "c/0/1/1" in run.ended.said
        return judged(names_it and not run.ended.has_traceback, "the block fails and names the chunk", run)
    lost = run.valid[1][128:256, 128:256]
    return judged(not lost.any(), "the lost chunk is nodata", f"{lost.mean():.0%} of it are valid")


@case
def zarr_with_a_gap(desk: Desk, folder: Path) -> Verdict:
    run = desk.detect(folder / "gap.zarr", folder / "gap.zarr", *DATES)
    return refusal(run.ended, "gap.zarr", ("1010", "1,010", "gap", "step"))


@case
def damaged_jpeg_tile(desk: Desk, folder: Path) -> Verdict:
    run = desk.detect(folder / BEFORE, folder / AFTER)
    if run.ended.code == 2:
        return refusal(run.ended, AFTER)
    if run.ended.code == 1:
        return judged(
            AFTER in run.ended.said and not run.ended.has_traceback, "its block fails and names the file", run
        )
    if not run.is_done:
        return wrong(str(run))
    tile = run.valid[1][:256, 256:]
    return judged(
        run.is_done and not tile.any(), "the tile is nodata", f"{tile.mean():.0%} of the damaged tile are valid"
    )


# where it is


@case
def south_up(desk: Desk, folder: Path) -> Verdict:
    north, south = folder / "northup_20190601.tif", folder / "southup_20210601.tif"
    run = desk.detect(north, south)
    if run.ended.code == 2:
        return wrong(str(run))
    twin = Path(shutil.copy(north, folder / "twin_20210601.tif"))
    holds, seen = same(run, pixels_of(north))
    probability = desk.detect(north, twin).probability
    return judged(holds and np.array_equal(run.probability, probability), "the bytes of its north-up twin", seen)


@case
def ground_control_points(desk: Desk, folder: Path) -> Verdict:
    path = folder / "gcps_20190601.tif"
    return refusal(desk.plan(path, path), path.name, ("ground control points", "GCPs"), "gdalwarp")


@case
def engineering_crs(desk: Desk, folder: Path) -> Verdict:
    return refusal(desk.detect(folder / BEFORE, folder / AFTER).ended, BEFORE, ("CRS", "coordinate reference system"))


@case
def crs_that_geotiff_cannot_hold(desk: Desk, folder: Path) -> Verdict:
    run = desk.detect(folder / BEFORE, folder / AFTER)
    if run.ended.code == 2:
        return refusal(run.ended, ("CRS", "coordinate reference system"), ("--crs", "GeoTIFF"))
    product = run.directory / "change_probability.tif"
    if not run.is_done:
        return wrong(str(run))
    with rasterio.open(product) as file, rasterio.open(folder / BEFORE) as source:
        agrees = file.crs == source.crs
    strays = list(run.directory.glob("*.aux.xml"))
    return judged(agrees and not strays, "the product has its CRS", f"{strays} beside it, CRS kept: {agrees}")


@case
def compound_crs(desk: Desk, folder: Path) -> Verdict:
    plan = desk.plan(folder / BEFORE, folder / AFTER)
    if plan.code:
        return wrong(plan.said)
    line = next((line for line in plan.out.splitlines() if line.startswith("resampled")), "")
    if "nothing" not in line:
        return wrong(line)
    holds, seen = same(desk.detect(folder / BEFORE, folder / AFTER), pixels_of(folder / AFTER))
    return judged(holds, "nothing is resampled", seen)


@case
def across_the_date_line(desk: Desk, folder: Path) -> Verdict:
    plan = desk.plan(folder / "before", folder / "before", *DATES)
    if plan.code == 2:
        return refusal(plan, "180")
    if "556 × 256 px" not in plan.out:
        return wrong(next((line for line in plan.out.splitlines() if line.startswith("grid")), plan.said[-200:]))
    run = desk.detect(folder / "before", folder / "before", *DATES)
    tile = pixels_of(folder / "before" / "west_20190601.tif")
    truth = np.zeros((3, 256, 556), tile.dtype)
    truth[:, :, :256], truth[:, :, 300:] = tile, pixels_of(folder / "before" / "east_20190601.tif")
    valid = np.ones((256, 556), bool)
    valid[:, 256:300] = False
    holds, seen = same(run, truth, valid=valid)
    return judged(holds, "556 px wide, both tiles in their places", seen)

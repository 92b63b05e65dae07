"""The 31 cases of `make.py`, each tried as a user would, with an oracle that reads the files with rasterio or numpy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio

from benchmarks.door_desk import DATES, Desk, Verdict, counts, judged, pixels_of, refusal, right, same, wrong

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


# many files, names, addresses


@case
def one_empty_tile(desk: Desk, folder: Path) -> Verdict:
    run = desk.detect(folder / "before", folder / "before", *DATES)
    tiles = [pixels_of(folder / "before" / f"t{number}_20190601.tif") for number in range(4)]
    truth = np.concatenate([np.concatenate(tiles[:2], axis=2), np.concatenate(tiles[2:], axis=2)], axis=1)
    if run.is_done and run.images.shape[2:] != (512, 512):
        # the corner may be left out only together with its place
        return wrong(f"grid {run.images.shape[2:]}")
    holds, seen = same(run, truth, valid=(truth != 0).any(axis=0))
    return judged(holds, "three tiles are read, the empty one is nodata", seen)


@case
def tile_numbers_like_years(desk: Desk, folder: Path) -> Verdict:
    ended, _ = desk.reprocess(folder, "--dry-run")
    if ended.code == 2:
        return refusal(ended, ".tif", "--date-pattern")
    text = ended.out + ended.err
    holds = ended.code == 0 and "2 dates" in text and "2019-" in text and "2021-" in text
    is_clean = "2048-" not in text and "1024-" not in text and "512 × 256 px" in text
    return judged(holds and is_clean, "two dates, 2019 and 2021, of two tiles each", " ".join(text.split())[:300])


@case
def day_of_the_year(desk: Desk, folder: Path) -> Verdict:
    # days 124 of 2001, and 209 and 276 of a leap year
    days = {"LT5": "2001-05-04", "MOD09GA": "2020-07-27", "HLS": "2020-10-02"}
    paths = {name: next(folder.glob(f"{name}*.tif")) for name in days}
    seen = []
    for before, after in (("LT5", "MOD09GA"), ("LT5", "HLS")):
        plan = desk.plan(paths[before], paths[after])
        lines = [line for line in plan.out.splitlines() if line.startswith(("before", "after"))]
        if plan.code or days[before] not in lines[0] or days[after] not in lines[1]:
            return wrong(f"{lines} {plan.said[-200:]}")
        seen += [days[after]]
    return right(f"{days['LT5']}, {', '.join(seen)}")


@case
def zipped(desk: Desk, folder: Path) -> Verdict:
    run = desk.detect(folder / "before.zip", folder / BEFORE, *DATES)
    if run.ended.code == 2:
        return refusal(run.ended, "before.zip")
    holds, seen = same(run, pixels_of(folder / BEFORE), date=0)
    return judged(holds, "read as the file in it", seen)


@case
def vrt_of_tiles(desk: Desk, folder: Path) -> Verdict:
    path = folder / "mosaic_20190601.vrt"
    run = desk.detect(path, path, *DATES)
    holds, seen = same(run, np.concatenate([pixels_of(folder / f"t{number}.tif") for number in range(2)], axis=2))
    return judged(holds, "read as the list of its files", seen)


@case
def statistics_beside_an_input(desk: Desk, folder: Path) -> Verdict:
    statistics = folder / f"{AFTER}.aux.xml"
    text = statistics.read_text()
    statistics.unlink()
    first = desk.detect(folder / BEFORE, folder / AFTER)
    if not first.is_done:
        return wrong(str(first))
    ledgers = first.ledgers
    statistics.write_text(text)
    again = desk.detect(folder / BEFORE, folder / AFTER, output=first.directory)
    return judged(again.is_done and again.ledgers == ledgers, "the same run, nothing is done again", again)


@case
def list_written_elsewhere(desk: Desk, folder: Path) -> Verdict:
    truth = np.concatenate([pixels_of(folder / f"t{number}_20190601.tif") for number in range(2)], axis=2)
    for before, after in (("bom.txt", "utf16.txt"), ("bom.txt", "")):
        run = desk.detect(folder / before, folder / after, *DATES)
        for date in range(2):
            holds, seen = same(run, truth, date=date)
            if not holds:
                return wrong(f"{before}, {after or 'the folder'}: {seen}")
    return right("both lists and the folder are the two tiles")


@case
def one_file_many_paths(desk: Desk, folder: Path) -> Verdict:
    before = folder / BEFORE
    first = desk.detect(before, folder / AFTER)
    if not first.is_done:
        return wrong(str(first))
    ledgers = first.ledgers
    spellings = (AFTER, f"./{AFTER}", f"../{folder.name}/{AFTER}", "link.tif", os.path.relpath(folder / AFTER, folder))
    for spelling in spellings:
        again = desk.detect(before, spelling, output=first.directory, folder=folder)
        if not again.is_done or again.ledgers != ledgers:
            return wrong(f"{spelling}: {again}")
    return right(f"one run by {len(spellings) + 1} spellings, nothing is done again")


# archives


@case
def one_broken_date(desk: Desk, folder: Path) -> Verdict:
    broken = folder / "x_20210601.tif"
    ended, output = desk.reprocess(folder, "--block", "256")
    cogs = sorted(output.glob("versions/*/cells/*/*/change_probability.tif"))
    if ended.code != 1 or broken.name not in ended.said or ended.has_traceback or len(cogs) != 2:
        return wrong(f"exit code {ended.code}, {len(cogs)} pairs: {ended.said[-300:]}")
    shutil.copy(folder / "x_20200601.tif", broken)
    ended, output = desk.reprocess(folder, "--block", "256", output=output)
    cogs = sorted(output.glob("versions/*/cells/*/*/change_probability.tif"))
    return judged(
        ended.code == 0 and len(cogs) == 3, "two pairs are done, the third once its file is mended", ended.said[-300:]
    )


@case
def a_page_of_a_longer_list(desk: Desk, folder: Path) -> Verdict:
    ended, _ = desk.reprocess(folder / "page1.json", "--dry-run")
    if ended.code == 2:
        return refusal(ended, "page1.json", ("4", "next"))
    return judged(
        ended.code == 0 and "4 dates" in ended.out, "the next page is followed", " ".join(ended.out.split())[:200]
    )


# labels


@case
def label_with_ignored(desk: Desk, folder: Path) -> Verdict:
    ended, dataset = desk.prepare(folder)
    if ended.code == 2:
        return refusal(ended, "label.tif", "255", "--ignored")
    truth = pixels_of(folder / "label.tif")[0]
    return _labels(ended.code, ended.said, dataset, changed=truth == 1, ignored=truth == 255)


@case
def label_of_ones_and_few_twos(desk: Desk, folder: Path) -> Verdict:
    ended, _ = desk.prepare(folder)
    asked = refusal(ended, "label.tif", "1", "2", ("--changed", "--unchanged"))
    if asked.kind == "wrong":
        return asked
    ended, dataset = desk.prepare(folder, "--changed", "2", "--unchanged", "1")
    truth = pixels_of(folder / "label.tif")[0]
    settled = _labels(ended.code, ended.said, dataset, changed=truth == 2, ignored=truth == 255)
    return asked if settled.kind == "right" else settled


@case
def label_with_nodata_zero(desk: Desk, folder: Path) -> Verdict:
    ended, dataset = desk.prepare(folder)
    truth = pixels_of(folder / "label.tif")[0]
    return _labels(ended.code, ended.said, dataset, changed=truth == 1, ignored=np.zeros(truth.shape, bool))


@case
def label_of_other_types(desk: Desk, folder: Path) -> Verdict:
    verdict = wrong("no folder")
    for dtype in ("int16", "int32", "float64"):
        ended, dataset = desk.prepare(folder / dtype)
        truth = pixels_of(folder / dtype / "label.tif")[0]
        verdict = _labels(ended.code, ended.said, dataset, changed=truth == 1, ignored=np.zeros(truth.shape, bool))
        if verdict.kind == "wrong":
            return wrong(f"{dtype}: {verdict.words}")
    return verdict


def _labels(code: int, said: str, dataset: Path, *, changed: np.ndarray, ignored: np.ndarray) -> Verdict:
    """Whether a dataset has as many pixels of each class as the label; its windows cover all of it once."""
    if code:
        return wrong(f"exit code {code}: {said[-300:]}")
    truth = {1: int(changed.sum()), 255: int(ignored.sum()), 0: int((~changed & ~ignored).sum())}
    found = counts(dataset)
    share = truth[1] / (truth[0] + truth[1])
    return judged(
        found == {value: count for value, count in truth.items() if count},
        f"{share:.1%} of what is labelled changed, {ignored.mean():.1%} ignored",
        f"{found}, not {truth}",
    )

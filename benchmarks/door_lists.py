"""Cases of `make.py` about many files, archives and labels, each tried as a user would."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from benchmarks.door_cases import AFTER, BEFORE, case
from benchmarks.door_desk import DATES, Desk, Verdict, counts, judged, pixels_of, refusal, right, same, wrong

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

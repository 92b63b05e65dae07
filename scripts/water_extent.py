"""The task of the bundle `water-extent`: change of open water between two dates, seen from red, green and blue alone.

    python -m scripts.water_extent table FOLDER water.csv     # all pairs of dates that have a water mask
    dasnet prepare water.csv --output water --window 128 --stride STRIDE --bands 1,2,3 --band-names red,green,blue \\
        --split columns:0.6,0.7 --grid-resolution 5
    python -m scripts.water_extent peer water                 # what the difference of two guesses of water reaches

FOLDER holds images whose names end in ``_YYYYMMDD.tif`` and masks ``water_YYYYMMDD.tif`` (1 = water, 0 = not, 255 = not
known).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from dasnet.metrics import Confusion
from storage.datasets.store import DatasetStore, open_dataset

GUESSES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "dark": lambda rgb: -rgb.mean(axis=0),
    "dark red": lambda rgb: -rgb[0],
    "bluer than red": lambda rgb: (rgb[2] - rgb[0]) / (rgb[2] + rgb[0] + 1),
    "greener than red": lambda rgb: (rgb[1] - rgb[0]) / (rgb[1] + rgb[0] + 1),
    "bluer than green": lambda rgb: (rgb[2] - rgb[1]) / (rgb[2] + rgb[1] + 1),
}
"""Indices of water from (3, h, w) red, green, blue; higher = more like water."""


def write_table(folder: Path, path: Path) -> None:
    """All pairs of dates of which both have an image and a mask, earlier date first."""
    images = {
        found[1]: file for file in folder.glob("*.tif") if (found := re.fullmatch(r"m_.*_(\d{8})\.tif", file.name))
    }
    dates = sorted(date for date in images if (folder / f"water_{date}.tif").exists())
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "before", "after", "label_before", "label_after", "place"])
        for one, other in itertools.combinations(dates, 2):
            masks = [folder / f"water_{date}.tif" for date in (one, other)]
            writer.writerow([f"{one}-{other}", images[one], images[other], *masks, "quadrangle"])
    print(f"{path}: {len(dates) * (len(dates) - 1) // 2} pairs of {len(dates)} dates")


def otsu_by_date(store: DatasetStore, guess: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> dict[str, float]:
    """Otsu's threshold of an index for each date, over the training split: nothing of the test split is looked at."""
    values: dict[str, list[NDArray[np.float32]]] = {}
    for index in store.indices("train")[::4]:
        sample = store.read([int(index)])
        for n, date in enumerate(str(store.sources[index]).split("-")):
            image = (sample.before, sample.after)[n][0].astype(np.float32)
            values.setdefault(date, []).append(guess(image)[sample.valid[0, n]][::8])
    return {date: float(threshold_otsu(np.concatenate(found))) for date, found in values.items()}


def score_guess(store: DatasetStore, split: str, name: str) -> Confusion:
    """Changed = the two dates' guesses of water differ."""
    guess = GUESSES[name]
    cuts = otsu_by_date(store, guess)
    total = Confusion()
    for index in store.indices(split):
        sample = store.read([int(index)])
        one, other = str(store.sources[index]).split("-")
        water = [
            guess(image[0].astype(np.float32)) > cuts[date]
            for image, date in ((sample.before, one), (sample.after, other))
        ]
        total += Confusion.count(water[0] ^ water[1], sample.label[0])
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    table = commands.add_parser("table")
    table.add_argument("folder", type=Path)
    table.add_argument("output", type=Path)
    peer = commands.add_parser("peer")
    peer.add_argument("dataset", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "table":
        write_table(arguments.folder, arguments.output)
        return
    store = open_dataset(arguments.dataset)
    on_validation = {name: score_guess(store, "val", name) for name in GUESSES}
    for name, found in on_validation.items():
        print(f"{name}: F1 {found.f1:.3f} on validation")
    best = max(on_validation, key=lambda name: on_validation[name].f1)
    found = score_guess(store, "test", best)
    print(f"{best}, the best on validation: {found.describe()} on test")


if __name__ == "__main__":
    main()

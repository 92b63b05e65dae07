"""The synthetic scenes that the bundle `synthetic` is trained on, and their table for ``dasnet prepare``.

    python -m scripts.synthetic_scenes scenes
    dasnet prepare scenes/scenes.csv --output synthetic-data --band-names red,green,blue
    dasnet train synthetic-data --output synthetic ...      # cpu_small with the changes that the bundle's card tells

Scenes of training, validation and test have seeds of their own, none of which the demo, the tests or the benchmarks
use. Season, haze, sun, shift and sensor gain differ between the dates of each and are no change.
"""

from __future__ import annotations

import argparse
import csv
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from storage.synthetic.noise import Sun
from storage.synthetic.pair import synthesize
from storage.synthetic.scene import PseudoChange

SEEDS = {"train": range(1000, 1040), "val": range(9001, 9005), "test": range(9101, 9105)}


def any_pseudo_change(seed: int) -> PseudoChange:
    """Conditions of two dates as they might be, drawn from a seed."""
    random = np.random.default_rng([seed, 7])

    def sun() -> Sun:
        return Sun(azimuth=random.uniform(100, 260), elevation=random.uniform(30, 62))

    overall = random.uniform(0.88, 1.14)
    gain = tuple(float(overall * random.uniform(0.94, 1.06)) for _ in range(3))
    offset = tuple(float(random.uniform(-8, 12)) for _ in range(3))
    return PseudoChange(
        season=random.uniform(0, 0.9),
        haze=random.uniform(0, 0.35),
        before=sun(),
        after=sun(),
        shift_x=random.uniform(-0.7, 0.7),
        shift_y=random.uniform(-0.7, 0.7),
        gain=(gain[0], gain[1], gain[2]),
        offset=(offset[0], offset[1], offset[2]),
        noise=random.uniform(1, 4),
    )


def draw_scene(folder: Path, split: str, number: int, *, side: int) -> list[str]:
    """Draw a scene of a split below `folder`, unless it is there; returns its row of the table."""
    seed = SEEDS[split][number]
    # every fourth scene of training has the generator's usual conditions, every second of the others; the rest any
    usual = number % (4 if split == "train" else 2) == 0
    if not (folder / str(seed)).exists():
        unfinished = folder / f".{seed}.partial"
        pseudo = None if usual else any_pseudo_change(seed)
        synthesize(unfinished, height=side, width=side, seed=seed, pseudo=pseudo)
        unfinished.rename(folder / str(seed))
    name = f"{seed}-{'usual' if usual else 'any'}"
    return [name, *(f"{seed}/{file}.tif" for file in ("before", "after", "change")), split, name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=2048, help="of a scene, pixels")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.workers) as pool:
        drawn = [
            pool.submit(draw_scene, arguments.folder, split, number, side=arguments.side)
            for split, seeds in SEEDS.items()
            for number in range(len(seeds))
        ]
        rows = []
        for future in drawn:
            rows.append(future.result())
            print(f"{rows[-1][4]}: {rows[-1][0]}", flush=True)
    table = arguments.folder / "scenes.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["name", "before", "after", "label", "split", "place"], *rows])
    print(table)


if __name__ == "__main__":
    main()

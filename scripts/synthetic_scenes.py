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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=2048, help="of a scene, pixels")
    arguments = parser.parse_args()
    rows = []
    for split, seeds in SEEDS.items():
        # every fourth scene of training has the generator's usual conditions, every second of the others; the rest any
        usual_every = 4 if split == "train" else 2
        for n, seed in enumerate(seeds):
            usual = n % usual_every == 0
            pair = synthesize(
                arguments.folder / str(seed),
                height=arguments.side,
                width=arguments.side,
                seed=seed,
                pseudo=None if usual else any_pseudo_change(seed),
            )
            name = f"{seed}-{'usual' if usual else 'any'}"
            rows.append(
                [
                    name,
                    *(path.relative_to(arguments.folder) for path in (pair.before, pair.after, pair.change)),
                    split,
                    name,
                ]
            )
            print(f"{split}: {name}", flush=True)
    table = arguments.folder / "scenes.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["name", "before", "after", "label", "split", "place"], *rows])
    print(table)


if __name__ == "__main__":
    main()

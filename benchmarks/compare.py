"""The paper's tables on other data: which method is best, and what loss, attention, λ and decoder bring?

    python -m benchmarks.compare levir LEVIR-1M OUTPUT [--tables methods] [--seeds 3] [--robustness] [--dry-run]
    python -m benchmarks.compare water NAIP OUTPUT
    python -m benchmarks.compare synthetic NOWHERE OUTPUT

LEVIR-1M holds train, val and test with A, B and label; NAIP is the folder of scripts/water_extent.py; the synthetic
scene is drawn. Each prints the `dasnet` commands that it runs, one after another, and stops at the first that fails;
run again it goes on. `OUTPUT/comparison/tables.md` is what to commit as ``benchmarks/results/DATE-compare-NAME.md``,
with the commands printed above it; `report.html` has the pictures.

One command each, for a machine without a GPU (all settings are written into the report):

    dasnet compare OUTPUT/data --output OUTPUT/comparison --tables methods --seeds 3 --robustness SETTINGS
    dasnet compare OUTPUT/data --output OUTPUT/comparison --tables losses,attention,lambda,decoder,training \\
        --seeds 3 SETTINGS
    dasnet compare OUTPUT/data --output OUTPUT/margins --tables margins --seeds 1 SETTINGS            # Figure 7
    dasnet figures OUTPUT/comparison/trainings/dasnet-seed0-… --dataset OUTPUT/data --output OUTPUT/figures \\
        --beside OUTPUT/comparison/trainings/dasnet-seed0-…        # the second: the training of siam-conv

The trainings of one directory are shared: DASNet as it is stands in five tables and is trained once a seed.

DASNet's settings (decoder to half resolution, m2 = 2.0, no class weights, averaged weights) were chosen on validation
splits of LEVIR and of synthetic scenes. The other networks keep their authors' recipes, but for precision, crops,
length and batches of 8, since batches of 32 leave them a quarter of the steps. Within a table of DASNet all rows share
these settings, but for what the table varies (in `losses` the class weights too).

Time (2026-11-24): pairs of 96 px (bidatenet: 32) a second in training on one core of an AMD EPYC with AVX-512 and its
bfloat16, from the CPU time of a step: dasnet 23 in float32 and no faster in bfloat16; in float32 and bfloat16 fc-ef 28
and 43, fc-siam-conc 17 and 30, fc-siam-diff 20 and 33, bidatenet 21 and 39, cdnet 4.4 and 8.7, dscn 8 and 17, sccn 94
and 171. So all but DASNet are trained in bfloat16.
The later ones in float32 on a core of another machine (2026-11-27): tinycd 8, bit 4, changemamba 1. `--robustness`
scores the test split 17 times. Networks as in the paper (`--recipe paper_cdd`) want a GPU: 205 GFLOP a pair of
windows.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

_PEERS = ("fc-ef", "fc-siam-conc", "fc-siam-diff", "bidatenet", "cdnet", "dscn", "sccn", "bit", "tinycd", "changemamba")
_USUAL = [
    "dasnet.ema=0.99",
    "dasnet.augmentation.crop=96",
    "dasnet.decoder=half",
    "dasnet.margin_changed=2.0",
    "dasnet.class_weights=none",
    "cdnet.augmentation.crop=96",
    *(f"{name}.augmentation.crop=96" for name in ("dscn", "bit", "tinycd", "changemamba")),
    *(f"{name}.precision=bfloat16" for name in _PEERS),
    *(f"{name}.batch=8" for name in ("fc-ef", "fc-siam-conc", "fc-siam-diff", "bidatenet", "changemamba")),
]
SETTINGS = {
    "levir": ["epochs=3", "samples_per_epoch=1600", *_USUAL],
    "water": ["epochs=3", "samples_per_epoch=800", *_USUAL],
    "synthetic": ["epochs=3", "samples_per_epoch=800", *_USUAL],
}


def commands(options: argparse.Namespace) -> list[list[str]]:
    """Words after `dasnet`, or after `python -m` where the first is a module."""
    data, output = options.output / "data", options.output
    made: list[list[str]]
    if options.name == "levir":
        made = [["flows", "prepare", str(options.source), "--output", str(data), "--resolution", "1.0"]]
    elif options.name == "water":
        table = str(output / "water.csv")
        made = [
            ["scripts.water_extent", "table", str(options.source), table],
            ["flows", "prepare", table, "--output", str(data), "--window", "192", "--stride", "96", "--bands", "1,2,3"],
        ]
        made[-1] += ["--band-names", "red,green,blue", "--split", "columns:0.6,0.7", "--grid-resolution", "2.5"]
    else:
        scene = output / "scene"
        made = [
            ["flows", "synthesize", str(scene), "--height", "4096", "--width", "4096"],
            ["flows", "prepare", "--before", str(scene / "before.tif"), "--after", str(scene / "after.tif")],
        ]
        made[-1] += ["--label", str(scene / "change.tif"), "--output", str(data), "--split", "blocks"]
    compare = ["flows", "compare", str(data), "--output", str(output / "comparison"), "--tables", options.tables]
    compare += ["--seeds", str(options.seeds)] + (["--methods", options.methods] if options.methods else [])
    compare += [word for setting in SETTINGS[options.name] for word in ("--set", setting)]
    return [*made, compare + (["--robustness"] if options.robustness else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(SETTINGS))
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--tables", default="methods")
    parser.add_argument("--methods", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--robustness", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="print the commands alone")
    options = parser.parse_args()
    if not options.dry_run:
        options.output.mkdir(parents=True, exist_ok=True)
    for words in commands(options):
        print(shlex.join(["python", "-m", *words]), flush=True)
        if not options.dry_run:
            subprocess.run([sys.executable, "-m", *words], check=True)


if __name__ == "__main__":
    main()

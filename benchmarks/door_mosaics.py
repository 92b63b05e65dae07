"""SHA-256 of the probability of seven real pairs, as a user's command computes it: the same before and after a change.

    python -m benchmarks.door_mosaics --data DATA [--checkout CHECKOUT] [--only NAME …]

Red, green and blue with nodata in two of four resampled bands (NAIP), degrees with unnamed bands (Landsat), ENVI with
six bands (Taizhou), named bands without nodata (Suriname); bundles, and methods without training.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import machine, probability_sha256

_ROOT = Path(__file__).resolve().parent.parent
_NAIP = "naip/m_4709963_se_14_1_{}.tif"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two mosaics below the data folder, and the options of `dasnet detect` beside them."""

    name: str
    before: str
    after: str
    options: tuple[str, ...] = ()


PAIRS = (
    Pair(name="naip", before=_NAIP.format(20090818), after=_NAIP.format(20190904), options=("--bands", "1,2,3")),
    Pair(
        name="naip water",
        before=_NAIP.format(20140720),
        after=_NAIP.format(20160816),
        options=("--bands", "1,2,3", "--bundle", "water-extent"),
    ),
    Pair(name="landsat", before="landsat/1985.tif", after="landsat/2020.tif", options=("--bands", "1,2,3")),
    Pair(
        name="landsat cva",
        before="landsat/1990.tif",
        after="landsat/2010.tif",
        options=("--bundle", "cva", "--before-date", "1990-07-01", "--after-date", "2010-07-01"),
    ),
    Pair(
        name="taizhou",
        before="taizhou/2000TM",
        after="taizhou/2003TM",
        options=("--bundle", "SIX", "--before-date", "2000-03-17", "--after-date", "2003-02-06"),
    ),
    Pair(
        name="taizhou irmad",
        before="taizhou/2000TM",
        after="taizhou/2003TM",
        options=(
            *("--bundle", "irmad", "--bands", "1,2,3,4,5,6"),
            *("--before-date", "2000-03-17", "--after-date", "2003-02-06"),
        ),
    ),
    Pair(name="suriname", before="suriname/t0.tif", after="suriname/t1.tif"),
)
"""`SIX` stands for a bundle of random weights for six bands."""


def six_bands(path: Path) -> Path:
    """A bundle of random weights for six bands, the same bytes each time."""
    from dasnet.networks.architectures import Architecture
    from dasnet.prediction.bundle import random_bundle, save_bundle

    save_bundle(path, random_bundle(Architecture(backbone="mobilenet_v3", head_channels=96, in_bands=6)))
    return path


def detected(pair: Pair, data: Path, output: Path, *, bundle: Path, checkout: Path) -> str:
    """What `dasnet detect` of a checkout makes of a pair: the SHA-256, or what it said and its exit code."""
    options = [str(bundle) if option == "SIX" else option for option in pair.options]
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "flows", "detect", str(data / pair.before), str(data / pair.after)),
            *("--output", str(output), "--workers", "1", *options),
        ],
        capture_output=True,
        text=True,
        cwd=checkout,
        env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
    )
    if ended.returncode:
        return f"exit code {ended.returncode}: {' '.join(ended.stderr.split())[-400:]}"
    return probability_sha256(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with naip, landsat, taizhou and suriname")
    parser.add_argument("--checkout", type=Path, default=_ROOT, help="of this project; default: this one")
    parser.add_argument("--only", nargs="+", help="names of pairs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bundle = six_bands(Path(temporary) / "six.safetensors")
        for pair in PAIRS:
            if options.only and pair.name not in options.only:
                continue
            output = Path(temporary) / pair.name.replace(" ", "-")
            said = detected(pair, options.data, output, bundle=bundle, checkout=options.checkout.resolve())
            print(f"{pair.name}: {said}; {machine()}", flush=True)


if __name__ == "__main__":
    main()

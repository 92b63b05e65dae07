"""How long a command takes to answer, beside the time R of importing what any of them would need to read a raster.

    python -m benchmarks.startup [--runs 5] [--pair BEFORE AFTER [--bands 1,2,3]] [--base CHECKOUT]

R is the time of ``python -c "import rasterio, xarray, rioxarray, zarr"`` in the same run; each line is a median, as a
multiple of R, beside what it must be. With a pair of real mosaics it is also detected from end to end with the bundle
`water-extent` on a local cluster; with another checkout beside it, by both, by turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.common import machine, scene

_IMPORTS = "import rasterio, xarray, rioxarray, zarr"
_ROOT = Path(__file__).resolve().parent.parent


def seconds(arguments: list[str], *, until: str = "", code: int = 0, root: Path = _ROOT) -> float:
    """Wall time of ``python ARGUMENTS``, or until its output has a line that begins with `until`."""
    started = time.perf_counter()
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=root,
    ) as process:
        assert process.stdout is not None
        seen = None
        for line in process.stdout:
            if until and seen is None and line.startswith(until):
                seen = time.perf_counter() - started
    took = time.perf_counter() - started
    if process.returncode != code:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}")
    if until and seen is None:
        raise RuntimeError(f"{' '.join(arguments)} printed no line that begins with {until!r}")
    return seen if seen is not None else took


def median(runs: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pair", nargs=2, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--bands", help="of the pair, where its files do not name them")
    parser.add_argument("--base", type=Path, help="another checkout of this project, to compare with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        before, after = map(str, scene(folder, height=2048, width=2048))
        run = str(folder / "run")
        detect = ["-m", "flows", "detect", before, after, "--output"]
        seconds(["-c", _IMPORTS])  # from disk once, for all
        seconds([*detect, run])
        unit = median(options.runs, lambda: seconds(["-c", _IMPORTS]))
        print(f"R: {unit:.2f} s; {machine()}", flush=True)
        missing = ["-m", "flows", "detect", str(folder / "missing.tif"), after, "--output", str(folder / "none")]
        lines: list[tuple[str, float, Callable[[], float]]] = [
            ("refusal of a missing file", 1.2, lambda: seconds(missing, code=2)),
            (
                "--dry-run of two GeoTIFFs, to the printed plan",
                1.5,
                lambda: seconds([*detect, str(folder / "plan"), "--dry-run"], until="workers"),
            ),
            ("dasnet --help", 0.25, lambda: seconds(["-m", "flows", "--help"])),
            ("a second run with nothing to do", 2.0, lambda: seconds([*detect, run])),
            ("dasnet status", 0.5, lambda: seconds(["-m", "flows", "status", run])),
        ]
        for what, bar, measure in lines:
            took = median(options.runs, measure)
            print(f"{what}: {took / unit:.2f} R (at most {bar:g}), {took:.2f} s", flush=True)
        if options.pair is not None:
            bands = [] if options.bands is None else ["--bands", options.bands]
            _end_to_end([*options.pair, *bands], folder, base=options.base, runs=min(options.runs, 3))


def _end_to_end(pair: list[str], folder: Path, *, base: Path | None, runs: int) -> None:
    places = {"here": _ROOT} | ({} if base is None else {"base": base.resolve()})
    taken: dict[str, list[float]] = {name: [] for name in places}
    detect = ["-m", "flows", "detect", *pair, "--bundle", "water-extent", "--output"]
    for number in range(runs):
        for name, root in places.items():
            taken[name].append(seconds([*detect, str(folder / f"{name}-{number}")], root=root))
    here = statistics.median(taken["here"])
    beside = "" if base is None else f", {here / statistics.median(taken['base']):.2f} of the other checkout's"
    print(f"a pair from end to end: {here:.1f} s{beside}", flush=True)


if __name__ == "__main__":
    main()

"""The methods without training on real pairs with labels, a line each: scores at their own thresholds, and seconds.

python -m benchmarks.classical --data DATA                                      Taizhou, and open water on NAIP
python -m benchmarks.classical --memory 4096 8192 [--method irmad]              peak memory of whole runs
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from benchmarks.common import MemoryPeak, machine, scene, timed
from dasnet.baselines.detector import Detector, probability
from dasnet.baselines.methods import UNTRAINED, fit, untrained_named
from dasnet.baselines.reweighted import ChiSquared
from dasnet.baselines.statistics import Names
from dasnet.evaluation import curves
from dasnet.metrics import Confusion, ThresholdSweep
from tiling.conventions import IGNORED

Pair = tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.bool_], NDArray[np.uint8]]
"""before and after (C, h, w), where both are valid, and the label (h, w): 1 changed, 0 unchanged, 255 not known."""


def taizhou(data: Path) -> Pair:
    """Landsat ETM+, six bands, 17 March 2000 and 6 February 2003; 21,390 labelled pixels."""
    before, after = (rasterio.open(data / "taizhou" / name).read() for name in ("2000TM", "2003TM"))
    label = np.full(before.shape[1:], IGNORED, dtype=np.uint8)
    for value, name in ((0, "unchanged.bmp"), (1, "change.bmp")):
        label[np.asarray(Image.open(data / "taizhou" / name).convert("L")) > 0] = value
    return before, after, np.ones(label.shape, dtype=bool), label


def naip(data: Path) -> Pair:
    """Aerial imagery, four bands, 2009 and 2019; the label is change of open water, a small part of what changed."""
    with rasterio.open(data / "naip" / "m_4709963_se_14_1_20090818.tif") as first:
        before, there = first.read(), first.dataset_mask() > 0
        grid = {"crs": first.crs, "transform": first.transform, "width": first.width, "height": first.height}

    def on_grid(name: str, resampling: Resampling) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        with rasterio.open(data / "naip" / name) as source:
            count = source.count
            with WarpedVRT(source, resampling=resampling, add_alpha=True, **grid) as warped:
                return warped.read(list(range(1, count + 1))), warped.read(warped.count) > 0

    after, also = on_grid("m_4709963_se_14_1_20190904.tif", Resampling.bilinear)
    (old,), known = on_grid("water_20090818.tif", Resampling.nearest)
    (new,), known_too = on_grid("water_20190904.tif", Resampling.nearest)
    label = np.where(known & known_too & (old != 255) & (new != 255), old != new, IGNORED).astype(np.uint8)
    return before, after, there & also, label


def lines(name: str, pair: Pair) -> Iterator[str]:
    """One line for each method and threshold."""
    before, after, valid, label = pair
    bands = tuple(str(number) for number in range(1, len(before) + 1))
    names = Names(before=f"{name} before", after=f"{name} after", bands_before=bands, bands_after=bands)
    label = np.where(valid, label, np.uint8(IGNORED))
    for method_name, usual in UNTRAINED.items():
        for threshold in ("otsu", "chi2") if isinstance(usual, ChiSquared) else (None,):
            method = untrained_named(method_name, threshold=threshold)

            def run(method=method) -> tuple[int, Detector, NDArray[np.float64]]:
                state = fit(method, lambda: [(before, after, valid)], names)
                detector = method.detector(state)
                return state.passes, detector, np.where(valid, detector.statistic(before, after, valid), 0)

            (passes, detector, statistic), seconds = timed(run)
            sweep = ThresholdSweep(low=0.0, high=1.0, bins=4096)
            sweep.add(probability(statistic, detector.threshold), label)
            called = statistic >= detector.threshold
            found = Confusion.count(called, label)
            yield (
                f"{name}: {method_name}{f' ({threshold})' if threshold else ''}: OA {found.accuracy:.4f}, "
                f"kappa {found.kappa:.4f}, F1 {found.f1:.4f}, highest F1 of any threshold {sweep.best()[1].f1:.4f}, "
                f"ROC area {curves(sweep).roc_area:.4f}; {called[valid].mean():.1%} of the scene called changed; "
                f"threshold {detector.describe()}; {passes} passes, {seconds:.1f} s; {machine()}"
            )


def memory(sides: list[int], method: str) -> Iterator[str]:
    """Peak memory of driver and largest worker, a line for each side of a synthetic pair."""
    from flows.cluster.config import ClusterConfig
    from flows.detect.request import DetectRequest
    from flows.detect.run import run_detection

    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            before, after = scene(Path(folder), height=side, width=side)
            request = DetectRequest(
                before=str(before),
                after=str(after),
                output=Path(folder) / f"run-{side}",
                bundle=method,
                block=1024,
                cluster=ClusterConfig(workers=2, lanes=1),
            )
            with MemoryPeak() as peak:
                _, seconds = timed(lambda request=request: run_detection(request))
            yield (
                f"memory: {method} on {side}² px: driver {peak.driver / 1e6:,.0f} MB, largest worker "
                f"{peak.worker / 1e6:,.0f} MB, {seconds:.0f} s; {machine()}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with taizhou and naip")
    parser.add_argument("--memory", type=int, nargs="+", default=[], help="sides of synthetic pairs")
    parser.add_argument("--method", choices=list(UNTRAINED), default="irmad", help="that --memory runs")
    options = parser.parse_args()
    if options.data is not None:
        for name, load in (("taizhou", taizhou), ("naip", naip)):
            for line in lines(name, load(options.data)):
                print(line, flush=True)
    for line in memory(options.memory, options.method):
        print(line, flush=True)


if __name__ == "__main__":
    main()

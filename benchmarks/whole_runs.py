"""Whole runs of `detect` with a predictor that costs next to nothing: seconds of every stage, CPU time, memory.

    python -m benchmarks.whole_runs [--sides 4096 8192] [--workers 1 2] [--folder DIR] [--checkout DIR]

The map has some 19,000 places at 8192² px: the predictor draws discs of 3 to 13 px whose place and size follow from the
imagery, on a background that varies with it. With --checkout the same runs are made by another checkout of this
project, in the same environment, each beside ours: then a line of each follows the other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import MemoryPeak, machine, scene
from dasnet.prediction.predictor import BlockPrediction
from flows.detect.request import DetectRequest
from flows.detect.run import run_detection
from flows.run.observer import Observer, observed_by

_CELL = 32


class DiscsPredictor:
    """Marks discs that follow from the sum of each 32 × 32 px of the earlier date; blocks are multiples of that."""

    def predict(
        self,
        images: NDArray[Any],
        valid: NDArray[np.bool_],
        *,
        origins: NDArray[np.int64],
        taper: NDArray[np.float32],
        crop: tuple[slice, slice],
        pairs: Sequence[tuple[int, int]] | None = None,
    ) -> BlockPrediction:
        chosen = pairs or [(later - 1, later) for later in range(1, len(valid))]
        inside = images[(..., *crop)]
        known = valid[(slice(None), *crop)]
        probability = np.stack(
            [np.where(known[one] & known[other], discs(inside[one, 1], inside[other, 1]), 255) for one, other in chosen]
        )
        return BlockPrediction(
            probability=probability.astype(np.uint8),
            windows_computed=len(origins),
            windows_skipped=0,
            disagreement=np.zeros(256, dtype=np.int64),
        )

    def describe(self) -> Mapping[str, Any]:
        return {"device": "none"}


def discs(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w) uint8: a disc of 200 in three cells of ten, elsewhere an eighth of how far the dates differ."""
    height, width = before.shape
    padded = np.pad(before, ((0, -height % _CELL), (0, -width % _CELL)))
    rows, cols = (length // _CELL for length in padded.shape)
    sums = padded.reshape(rows, _CELL, cols, _CELL).sum(axis=(1, 3), dtype=np.uint32)
    drawn = (sums * np.uint32(2654435761)) >> np.uint32(8)
    radius = np.where(drawn % 10 < 3, 3 + (drawn >> 8) % 11, 0)
    y, x = np.ogrid[:_CELL, :_CELL]
    far = (y - _CELL / 2 + 0.5) ** 2 + (x - _CELL / 2 + 0.5) ** 2
    is_disc = far[None, :, None] <= (radius**2)[:, None, :, None]
    mask = is_disc.reshape(padded.shape)[:height, :width]
    background = np.abs(before.astype(np.int16) - after) >> 3
    return np.where(mask, 200, background).astype(np.uint8)


class _Clock(Observer):
    """When each stage began and ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began, self._stage = time.perf_counter(), "start"

    def begin(self, stage: str, total: int, *, done: int = 0, unit: str = "blocks", live: str = "") -> None:
        self._take(stage)

    def end(self, summary: str) -> None:
        self._take("between")

    def _take(self, following: str) -> None:
        now = time.perf_counter()
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._began
        self._began, self._stage = now, following


def measure(side: int, workers: int, scenes: Path) -> None:
    """One run, one line."""
    before, after = scene(scenes, height=side, width=side)
    with tempfile.TemporaryDirectory(dir=scenes) as folder:
        request = DetectRequest.model_validate(
            {
                "before": str(before),
                "after": str(after),
                "output": Path(folder) / "run",
                "cluster": {"workers": workers, "lanes": 1},
            }
        )
        clock, began, cpu = _Clock(), time.perf_counter(), time.process_time()
        with MemoryPeak() as peak, observed_by(clock):
            summary = run_detection(request, DiscsPredictor)
        whole, driver = time.perf_counter() - began, time.process_time() - cpu
        children = os.times()
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in clock.seconds.items() if seconds >= 0.05)
    ends = sum(seconds for name, seconds in clock.seconds.items() if name in ("plates", "mosaic", "products"))
    print(
        f"{side}² px, {workers} workers, {summary.polygons:,} places: {whole:.1f} s, {side * side / whole / 1e6:.2f} "
        f"Mpx/s; mosaic and products {ends:.1f} s, {side * side / ends / 1e6:.1f} Mpx/s ({stages}); CPU: driver "
        f"{driver:.1f} s, workers {children.children_user + children.children_system:.1f} s; memory: driver "
        f"{peak.driver / 1e6:,.0f} MB, worker {peak.worker / 1e6:,.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="where the scenes are kept for another time")
    parser.add_argument("--checkout", type=Path, help="another checkout, measured by turns with this one")
    options = parser.parse_args()
    if len(options.sides) == len(options.workers) == 1 and options.checkout is None:
        assert options.folder is not None
        measure(options.sides[0], options.workers[0], options.folder)
        return
    here = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        scenes = options.folder or Path(folder)
        for side in options.sides:
            scene(scenes, height=side, width=side)
            for workers in options.workers:
                for place in filter(None, (options.checkout, here)):
                    print(f"{place.name}: ", end="", flush=True)
                    words = ["--sides", str(side), "--workers", str(workers), "--folder", str(scenes)]
                    command = [sys.executable, str(Path(__file__).resolve()), *words]
                    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(place)}, cwd=place)
    print(machine())


if __name__ == "__main__":
    main()

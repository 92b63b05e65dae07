"""The data path with a predictor that returns a constant: Mpx/s of infer, memory of driver and worker.

python -m benchmarks.data_path [--sides 4096 24576] [--folder DIR]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import flow

from benchmarks.common import MemoryPeak, machine, scene
from dasnet.prediction.predictor import BlockPrediction
from flows.detect.flow import run_detection
from flows.detect.request import DetectRequest
from flows.run.directory import RunDirectory


class ConstantPredictor:
    """Says 0.5 wherever both dates are valid."""

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
        inside = valid[:, crop[0], crop[1]]
        both = np.stack([inside[earlier] & inside[later] for earlier, later in chosen])
        return BlockPrediction(
            probability=np.where(both, np.uint8(127), np.uint8(255)),
            windows_computed=len(origins),
            windows_skipped=0,
            disagreement=np.zeros(256, dtype=np.int64),
        )

    def describe(self) -> Mapping[str, Any]:
        return {"device": "none"}


@flow(name="data-path", persist_result=False)
def data_path(request: DetectRequest) -> None:
    """The main job, but for the network."""
    run_detection(request, ConstantPredictor)


def measure(side: int, scenes: Path) -> None:
    """One run, in a process of its own so that its memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = scene(scenes, height=side, width=side)
        output = Path(folder) / "run"
        with MemoryPeak() as memory:
            data_path(DetectRequest(before=str(before), after=str(after), output=output))
        seconds = (RunDirectory(output).describe() or {})["seconds"]
    rate = {stage: side * side / seconds[stage] / 1e6 for stage in ("ingest", "infer")}
    print(
        f"data path: {side}×{side}: ingest {rate['ingest']:.1f} Mpx/s, infer {rate['infer']:.1f} Mpx/s "
        f"(two RGB dates); peak memory of the whole run: driver {memory.driver / 1e6:.0f} MB, "
        f"worker {memory.worker / 1e6:.0f} MB; {machine()}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 24576])
    parser.add_argument("--folder", type=Path, help="where the scenes are kept for another time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scenes = options.folder or Path(folder)
        if len(options.sides) == 1:
            measure(options.sides[0], scenes)
            return
        for side in options.sides:
            alone = [sys.executable, "-m", "benchmarks.data_path", "--sides", str(side), "--folder", str(scenes)]
            subprocess.run(alone, check=True)


if __name__ == "__main__":
    main()

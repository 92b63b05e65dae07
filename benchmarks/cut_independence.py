"""Block size 512 against 2048 on the same mosaic: largest difference of the probability, in 1/254.

python -m benchmarks.cut_independence [--side 2560]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import zarr

from benchmarks.common import machine, scene


def main() -> None:
    from flows.detect.request import DetectRequest
    from flows.detect.run import run_detection

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2560)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        before, after = scene(place, height=options.side, width=options.side)
        arrays = []
        for block in (512, 2048):
            output = place / f"run-{block}"
            run_detection(DetectRequest(before=str(before), after=str(after), output=output, block=block))
            arrays.append(zarr.open_group(output / "run.zarr", mode="r")["change_probability"][:].astype(np.int16))
    difference = np.abs(arrays[0] - arrays[1])
    print(
        f"cut independence: largest difference {difference.max()} of 254, {np.count_nonzero(difference)} of "
        f"{difference.size} pixels differ (blocks of 512 against 2048); {machine()}"
    )


if __name__ == "__main__":
    main()

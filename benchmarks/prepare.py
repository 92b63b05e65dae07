"""Time and memory of `prepare` and `weights` on a pair of BCDD's size, and whether memory grows with the mosaic.

python -m benchmarks.prepare --work FOLDER --sizes 4096x4096 15354x32507
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from benchmarks.common import MemoryPeak, machine, scene
from flows.cluster.config import ClusterConfig
from flows.dataset.class_weights import count_class_weights
from flows.dataset.request import PrepareRequest, WeightsRequest
from flows.dataset.run import run_preparation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", default=["4096x4096", "15354x32507"])
    arguments = parser.parse_args()
    for size in arguments.sizes:
        height, width = (int(n) for n in size.split("x"))
        before, after = scene(arguments.work, height=height, width=width)
        output = arguments.work / f"dataset-{size}"
        shutil.rmtree(output, ignore_errors=True)
        began = time.perf_counter()
        with MemoryPeak() as memory:
            summary = run_preparation(
                PrepareRequest(
                    before=str(before),
                    after=str(after),
                    label=before.with_name("change.tif"),
                    output=output,
                    cluster=ClusterConfig(workers=2),
                )
            )
        seconds = time.perf_counter() - began
        samples = sum(count for count, _ in summary.counts.values())
        print(
            f"prepare {width} × {height} px: {seconds:.0f} s, {samples:,} samples, "
            f"{height * width / seconds / 1e6:.1f} Mpx/s; peak memory driver {memory.driver / 1e6:.0f} MB, worker "
            f"{memory.worker / 1e6:.0f} MB; {machine()}",
            flush=True,
        )
        began = time.perf_counter()
        with MemoryPeak() as memory:
            count_class_weights(WeightsRequest(dataset=output, cluster=ClusterConfig(workers=2)))
        print(
            f"weights of it: {time.perf_counter() - began:.1f} s; peak memory driver {memory.driver / 1e6:.0f} MB, "
            f"worker {memory.worker / 1e6:.0f} MB; {machine()}",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Measure 4: throughput of infer over the bare forward pass of the same windows in one process with the same threads.

    python -m benchmarks.efficiency [--side 3072] [--bundle synthetic]

The bare pass embeds as many windows as the run did, both dates, in batches of the same size, precision and layout, with
nothing read, blended or written; a thread for each lane of the run, each with one intra-op thread.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.common import machine, prefect, scene


def main() -> None:
    import torch

    from dasnet.bundle import load_bundle
    from dasnet.inference import DasnetPredictor
    from flows.cluster import local_layout
    from flows.config import ClusterConfig, DetectRequest
    from flows.detect import detect_changes
    from flows.products import BlockStatistics
    from flows.run_directory import RunDirectory

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=3072)
    parser.add_argument("--bundle", default="synthetic")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, prefect():
        place = Path(folder)
        before, after = scene(place, height=options.side, width=options.side)
        output = place / "run"
        detect_changes(DetectRequest(before=str(before), after=str(after), output=output, bundle=options.bundle))
        directory = RunDirectory(output)
        seconds = (directory.describe() or {})["seconds"]["infer"]
        windows = BlockStatistics.of(directory.ledger("infer")).windows
    lanes = local_layout(ClusterConfig()).computing
    bundle = load_bundle(options.bundle)
    predictor = DasnetPredictor(bundle, device="cpu")
    share = min(windows, 40 * predictor.batch * lanes)

    def embed(count: int) -> None:
        images = torch.randn(predictor.batch, len(bundle.bands), bundle.window, bundle.window)
        for _ in range(-(-count // predictor.batch)):
            predictor.embed(images)

    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(embed, [predictor.batch] * lanes))
        started = time.perf_counter()
        list(pool.map(embed, [2 * share // lanes] * lanes))
        bare = (time.perf_counter() - started) / share
    ours = seconds / windows
    print(
        f"efficiency: {bare / ours:.3f} (infer {1 / ours:.2f} window pairs/s end to end, bare forward {1 / bare:.2f}; "
        f"{windows} windows, {lanes} threads); {machine()}"
    )


if __name__ == "__main__":
    main()

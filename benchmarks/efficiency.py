"""Measure 4: throughput of infer over the bare forward pass of the same windows in one process with the same threads.

    python -m benchmarks.efficiency [--side 8192] [--bundle synthetic]

The bare pass takes as many windows as the run did through the network, both dates, to distances at full resolution, in
the same batches, precision and layout, with nothing read, calibrated, blended or written; a thread for each lane of the
run, each with one intra-op thread. It is measured before and after the run, so that a drift of the machine shows.
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

    from dasnet.bundle import build_model, load_bundle
    from dasnet.inference_network import prepare
    from dasnet.model import upsample
    from flows.cluster import local_layout
    from flows.config import ClusterConfig, DetectRequest
    from flows.detect import detect_changes
    from flows.products import BlockStatistics
    from flows.run_directory import RunDirectory

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--bundle", default="synthetic")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lanes = local_layout(ClusterConfig()).computing
    bundle = load_bundle(options.bundle)
    model = build_model(bundle)
    network = prepare(model, device="cpu")

    def forward(pairs: int) -> None:
        images = torch.randn(2, len(bundle.bands), bundle.window, bundle.window)
        torch.get_num_threads()  # a new thread learns the number when it asks
        with torch.inference_mode():
            for _ in range(pairs):
                embeddings = network.embed(images)
                upsample(model.distance(embeddings[:1], embeddings[1:]), height=bundle.window, width=bundle.window)

    def bare(pairs: int) -> float:
        """Pairs of windows a second."""
        with ThreadPoolExecutor(lanes) as pool:
            list(pool.map(forward, [2] * lanes))
            started = time.perf_counter()
            list(pool.map(forward, [pairs // lanes] * lanes))
            return pairs // lanes * lanes / (time.perf_counter() - started)

    share = 200 if options.side > 1024 else 40
    earlier = bare(share)
    with tempfile.TemporaryDirectory() as folder, prefect():
        place = Path(folder)
        before, after = scene(place, height=options.side, width=options.side)
        output = place / "run"
        detect_changes(DetectRequest(before=str(before), after=str(after), output=output, bundle=options.bundle))
        directory = RunDirectory(output)
        seconds = (directory.describe() or {})["seconds"]["infer"]
        windows = BlockStatistics.of(directory.ledger("infer")).windows
    later = bare(share)
    rate, forward_rate = windows / seconds, (earlier + later) / 2
    print(
        f"efficiency ({options.bundle}): {rate / forward_rate:.3f} (infer {rate:.2f} window pairs/s end to end, bare "
        f"forward {earlier:.2f} before and {later:.2f} after; {windows} windows, {lanes} threads); {machine()}"
    )


if __name__ == "__main__":
    main()

"""Throughput of infer over the bare forward pass of the same windows in one process with the same threads.

    python -m benchmarks.efficiency [--side 8192] [--bundle synthetic]

The bare pass takes as many windows as the run did through the network, both dates, to distances at full resolution, in
the same batches, precision and layout, with nothing read, calibrated, blended or written; a thread for each lane of the
run, each with one intra-op thread. It is measured before and after each run, so that a drift of the machine falls on
both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.common import machine, scene


def main() -> None:
    import torch

    from dasnet.networks.decoder import upsample
    from dasnet.prediction.bundle import build_model, load_bundle
    from dasnet.prediction.network import prepare
    from flows.cluster.config import ClusterConfig
    from flows.cluster.layout import local_layout
    from flows.detect.products import BlockStatistics
    from flows.detect.request import DetectRequest
    from flows.detect.run import run_detection
    from flows.run.directory import RunDirectory

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--bundle", default="synthetic")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=400, help="pairs of windows in each bare pass")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lanes = local_layout(ClusterConfig()).computing
    bundle = load_bundle(options.bundle)
    model = build_model(bundle)
    network = prepare(model, in_bands=3, device="cpu")

    def forward(pairs: int) -> None:
        images = torch.randn(2, len(bundle.bands), bundle.window, bundle.window)
        torch.get_num_threads()  # a new thread learns the number when it asks
        with torch.inference_mode():
            for _ in range(pairs):
                embeddings = network.embed(images)
                upsample(
                    model.distance(embeddings[:1], embeddings[1:]),
                    height=bundle.window,
                    width=bundle.window,
                    stride=bundle.architecture.stride,
                )

    def bare(pairs: int) -> float:
        """Pairs of windows a second."""
        with ThreadPoolExecutor(lanes) as pool:
            list(pool.map(forward, [2] * lanes))
            started = time.perf_counter()
            list(pool.map(forward, [pairs // lanes] * lanes))
            return pairs // lanes * lanes / (time.perf_counter() - started)

    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        before, after = scene(place, height=options.side, width=options.side)
        for number in range(options.rounds):
            earlier = bare(options.pairs)
            output = place / f"run-{number}"
            run_detection(
                DetectRequest(
                    before=str(before), after=str(after), output=output, bundle=options.bundle, block=options.block
                )
            )
            later = bare(options.pairs)
            directory = RunDirectory(output)
            windows = BlockStatistics.of(directory.ledger("infer")).windows
            rounds.append((windows / (directory.describe() or {})["seconds"]["infer"], (earlier + later) / 2))
    ratio = statistics.median(infer / forward_alone for infer, forward_alone in rounds)
    measured = ", ".join(f"{infer:.2f} of {forward_alone:.2f}" for infer, forward_alone in rounds)
    print(
        f"efficiency ({Path(options.bundle).stem}): {ratio:.3f}, median of {options.rounds} (window pairs/s end to end "
        f"of bare forward: {measured}; {windows} windows, {lanes} threads); {machine()}"
    )


if __name__ == "__main__":
    main()

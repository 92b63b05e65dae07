"""Pairs of 256×256 pixels per second, ours over the authors' way, on this machine's CPU.

    python -m benchmarks.authors_way [--pairs 8] [--threads 2] [--backbone resnet50] [--compile]

The authors' way: one pair at a time, eager float32 in torch's default layout, a forward pass for each date with all
three heads, their distances upsampled; all threads on one pair. Ours: the same pairs as the windows of blocks through
`DasnetPredictor` as the workers run it, bfloat16, as many blocks at a time as threads and one thread for each.
Needs as many free cores as threads: two threads that wait for each other on a busy core say nothing about either way.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import machine
from dasnet.networks.architectures import Architecture, BackboneName
from dasnet.networks.decoder import upsample
from dasnet.prediction.bundle import Bundle, build_model, random_bundle
from dasnet.prediction.predictor import DasnetPredictor

WINDOW = 256
ROUNDS = 3


def authors_way(bundle: Bundle, pairs: NDArray[np.uint8]) -> float:
    """Pairs a second; `pairs` is (N, 2, 3, 256, 256)."""
    model = build_model(bundle)
    mean, std = (
        torch.tensor([getattr(band, name) for band in bundle.bands]).reshape(1, -1, 1, 1) for name in ("mean", "std")
    )
    with torch.no_grad():
        started = time.perf_counter()
        for before, after in pairs:
            x, y = ((torch.from_numpy(date)[None].float() - mean) / std for date in (before, after))
            for distance in model(x, y):
                upsample(distance, height=WINDOW, width=WINDOW, stride=model.architecture.stride)
        return len(pairs) / (time.perf_counter() - started)


def our_way(predictor: DasnetPredictor, pairs: NDArray[np.uint8], lanes: int) -> float:
    """The same pairs side by side in one block for each of `lanes` threads."""
    taper = np.ones(WINDOW, dtype=np.float32)

    def predict(share: NDArray[np.uint8]) -> int:
        images = np.concatenate(list(share), axis=-1)  # (2, 3, 256, 256·n)
        width = images.shape[-1]
        prediction = predictor.predict(
            images,
            np.ones((2, WINDOW, width), dtype=bool),
            origins=np.array([[0, x] for x in range(0, width, WINDOW)]),
            taper=taper,
            crop=(slice(0, WINDOW), slice(0, width)),
        )
        return prediction.windows_computed

    with ThreadPoolExecutor(lanes) as pool:
        started = time.perf_counter()
        computed = sum(pool.map(predict, np.array_split(pairs, lanes)))
        elapsed = time.perf_counter() - started
    assert computed == len(pairs)
    return len(pairs) / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--compile", action="store_true", help="torch.compile ours")
    options = parser.parse_args()
    threads = options.threads
    architecture = Architecture(backbone=cast(BackboneName, options.backbone))
    bundle = random_bundle(architecture)
    pairs = np.random.default_rng(0).integers(0, 256, (options.pairs, 2, 3, WINDOW, WINDOW), dtype=np.uint8)
    predictor = DasnetPredictor(bundle, precision="bfloat16", compile=options.compile)

    # Alternating rounds, so that what else the machine does falls on both.
    theirs, ours = [], []
    for _ in range(ROUNDS):
        torch.set_num_threads(threads)
        authors_way(bundle, pairs[:1])
        theirs.append(authors_way(bundle, pairs))
        torch.set_num_threads(1)
        our_way(predictor, pairs[:threads], threads)
        ours.append(our_way(predictor, pairs, threads))
    slow, fast = statistics.median(theirs), statistics.median(ours)
    way = "bfloat16, compiled" if options.compile else "bfloat16"
    print(
        f"authors' way ({options.backbone}, {threads} threads): {slow:.2f} pairs/s eager float32 one at a time, "
        f"{fast:.2f} pairs/s ours in {way}: {fast / slow:.2f} times (target 2) · median of {ROUNDS} · {machine()}"
    )


if __name__ == "__main__":
    main()

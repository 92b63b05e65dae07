"""How many pairs a second do several trainings make together on one device, and how many one alone?

    python -m benchmarks.side_by_side --at-once 1 12 --steps 40 --set backbone=timm:tf_efficientnet_lite0 --set batch=16

Each training is a process with a dataset of noise, the loop of `dasnet train` and one thread that reads; all begin
their steps together. The second of two epochs is timed. One line of JSON for each number of processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

_SIDE, _SAMPLES = 256, 64

_together: Any = None


def _begin_together(barrier: Any) -> None:
    global _together
    _together = barrier
    os.environ["OMP_NUM_THREADS"] = "1"


def one(changes: Sequence[str], steps: int) -> tuple[float, float, float]:
    """Run in a process of its own: pairs a second, the device's share of the time, seconds of both epochs."""
    import torch

    from benchmarks.training import Without, ours, store_of
    from flows.training.request import TrainRequest

    said = [*changes, "epochs=2"]
    asked = TrainRequest.model_validate({"dataset": "noise", "output": "noise", "changes": said}).effective
    sampling = asked.sampling.model_copy(update={"samples_per_epoch": asked.sampling.batch * steps})
    recipe = asked.model_copy(update={"sampling": sampling})
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        source = Without(store_of(Path(folder), count=_SAMPLES + 8, side=_SIDE))
        torch.zeros(1, device=device)
        _together.wait(60)
        began = time.perf_counter()
        rate, share = ours(recipe, source, _SIDE, device, 2 if device != "cpu" else 1)
    return rate, share, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 12])
    parser.add_argument("--steps", type=int, default=40, help="of each of two epochs")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for count in options.at_once:
        start = (context.Barrier(count),)
        with ProcessPoolExecutor(count, mp_context=context, initializer=_begin_together, initargs=start) as pool:
            made = [future.result() for future in [pool.submit(one, options.set, options.steps) for _ in range(count)]]
        facts = {
            "set": options.set,
            "at_once": count,
            "pairs_per_s": round(sum(rate for rate, _, _ in made), 1),
            "device_share": round(sum(share for _, share, _ in made) / count, 3),
            "seconds": round(max(seconds for _, _, seconds in made), 1),
        }
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()

"""Expected time of a run from a few windows computed here."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TypeVar

import numpy as np

from flows.inference.planned import PlannedSeries

_CALLS = 2
_WINDOWS = 4

J = TypeVar("J", bound=PlannedSeries)


def timed(job: J) -> J:
    """The job with the seconds of one window in its plan, measured on one CPU thread of this machine.

    Nothing is measured for another cluster than the local one, whose devices are not here, nor for a method without
    training, whose time goes into reading.
    """
    if job.request.cluster.kind != "local" or job.bundle.kind != "bundle":
        return job
    import torch

    from dasnet.prediction.bundle import load_bundle
    from dasnet.prediction.predictor import DasnetPredictor

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        predictor = DasnetPredictor(
            load_bundle(job.request.bundle),
            device="cpu",
            precision=job.request.precision,
            batch=job.request.batch,
            window=job.lattice.window,
        )
        window, count = job.lattice.window, _WINDOWS
        side = window * count
        images = np.zeros((2, len(job.bundle.band_names), window, side), dtype=job.bundle.dtype)
        valid = np.ones((2, window, side), dtype=bool)
        origins = np.stack([np.zeros(count, dtype=np.int64), np.arange(count) * window], axis=1)
        seconds = []
        for _ in range(1 + _CALLS):
            started = time.perf_counter()
            predictor.predict(
                images, valid, origins=origins, taper=job.lattice.taper, crop=(slice(0, window), slice(0, side))
            )
            seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    # the first call does not count: it allocates and chooses kernels
    return replace(job, plan=replace(job.plan, seconds_per_window=min(seconds[1:]) / (2 * count)))

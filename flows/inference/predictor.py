"""The predictor of a job: made from the request, loaded on each worker."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from dasnet.errors import BundleError
from dasnet.prediction.header import portable_name
from flows.inference.planned import PlannedSeries
from tiling.protocols import Predictor


def predictor_factory(job: PlannedSeries, *, dates: int = 2, pairs: int = 1) -> Callable[[], Predictor]:
    """What each worker calls to load the bundle that a job was planned with, wherever the worker runs.

    Args:
        dates, pairs: most dates of one task, and most pairs of them.
    """
    request, plan = job.request, job.plan
    return partial(
        load_predictor,
        portable_name(request.bundle),
        digest=job.bundle.digest,
        window=plan.lattice.window,
        dates=dates,
        pairs=pairs,
        spare=plan.block_bytes(dates=dates, pairs=pairs),
        device="cuda" if request.cluster.kind == "cuda" else "auto",
        precision=request.precision,
        batch=request.batch,
        compile=request.compile,
    )


def load_predictor(bundle: str, *, digest: str, **settings: Any) -> Predictor:
    """Load a bundle onto a device of this process; `settings` as in `dasnet.prediction.predictor.DasnetPredictor`.

    Raises:
        BundleError: the file is not the one that the run began with: its blocks would be those of two models.
    """
    from dasnet.prediction.bundle import load_bundle
    from dasnet.prediction.predictor import DasnetPredictor

    loaded = load_bundle(bundle)
    if loaded.digest != digest:
        raise BundleError(
            f"{bundle} on {socket.gethostname()} has SHA-256 {loaded.digest[:12]}…, but the run was begun with "
            f"{digest[:12]}…: the file was replaced meanwhile, or is another one on that machine"
        )
    return DasnetPredictor(loaded, **settings)

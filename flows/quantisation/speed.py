"""How long one date takes in each precision, on one core of this machine."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import get_args

import torch

from dasnet.prediction.bundle import Bundle
from dasnet.prediction.network import Precision, prepare_bundle

_CALLS = 7
_SECONDS = 4.0
"""After so long a precision is measured by the calls that there were."""


def milliseconds_by_precision(bundle: Bundle, *, side: int) -> dict[str, float]:
    """The shortest of a few calls for one date of `side` × `side` px, by one thread.

    bfloat16 is measured where the CPU has instructions for it: elsewhere nobody would take it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain = replace(bundle, quantised=None, quantised_graph=None)
        native = prepare_bundle(plain, side=side, device="cpu").precision
        precisions: list[Precision] = [
            precision
            for precision in get_args(Precision)
            if precision in ("float32", "int8") or (precision == "bfloat16" and native == "bfloat16")
        ]
        return {precision: _milliseconds(bundle, precision, side=side) for precision in precisions}
    finally:
        torch.set_num_threads(threads)


def _milliseconds(bundle: Bundle, precision: Precision, *, side: int) -> float:
    network = prepare_bundle(bundle, side=side, device="cpu", precision=precision)
    image = torch.zeros(1, len(bundle.bands), side, side)
    durations: list[float] = []
    with torch.inference_mode():
        network.embed(image)  # allocates and chooses kernels
        while len(durations) < _CALLS and sum(durations) < _SECONDS:
            started = time.perf_counter()
            network.embed(image)
            durations.append(time.perf_counter() - started)
    return round(1000 * min(durations), 3)

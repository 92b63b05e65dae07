"""How long one date takes in each precision, on one core of this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import torch

from dasnet.prediction.bundle import Bundle
from dasnet.prediction.network import Precision, prepare_bundle

_ROUNDS = 9
_SECONDS = 15.0
"""After so long no further round begins."""


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
        return _milliseconds(bundle, precisions, side=side)
    finally:
        torch.set_num_threads(threads)


def _milliseconds(bundle: Bundle, precisions: Sequence[Precision], *, side: int) -> dict[str, float]:
    networks = {
        precision: prepare_bundle(bundle, side=side, device="cpu", precision=precision) for precision in precisions
    }
    image = torch.zeros(1, len(bundle.bands), side, side)
    shortest = dict.fromkeys(precisions, math.inf)
    began = time.perf_counter()
    with torch.inference_mode():
        for network in networks.values():
            network.embed(image)  # allocates and chooses kernels
        for _ in range(_ROUNDS):
            for precision, network in networks.items():  # in turns: what else the machine does is shared by all
                started = time.perf_counter()
                network.embed(image)
                shortest[precision] = min(shortest[precision], time.perf_counter() - started)
            if time.perf_counter() - began > _SECONDS:
                break
    return {precision: round(1000 * duration, 3) for precision, duration in shortest.items()}

"""What a trained method costs: parameters, arithmetic, and time on this machine."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from dasnet.networks.architectures import AnyArchitecture
from dasnet.networks.methods import build_network
from dasnet.prediction.bundle import Bundle
from dasnet.prediction.predictor import DasnetPredictor
from dasnet.training.parallel import torch_threads
from flows.comparison.results import Cost
from flows.run.machine import machine
from storage.datasets.store import DatasetStore
from storage.places.publish import write_json_atomically

_PAIRS, _SECONDS = 16, 3.0


def counted(architecture: AnyArchitecture, window: int) -> tuple[int, int]:
    """Parameters, and floating-point operations of one pair of windows of `window` px, both dates and their distance.

    Operations are those of convolutions and matrix products, two for a multiplication with its addition, as
    torch.utils.flop_counter counts them. Nothing is computed.
    """
    with torch.device("meta"), torch.no_grad():
        network = build_network(architecture).eval()
        image = torch.empty(1, architecture.in_bands, window, window)
        with FlopCounterMode(display=False) as counter:
            network.distance(network.features(image), network.features(image))
    return sum(p.numel() for p in network.parameters()), int(counter.get_total_flops())


def cost_of(bundle: Bundle, store: DatasetStore, path: Path) -> Cost:
    """Count and time a bundle on samples of the test split; what was measured on this machine is read from `path`."""
    parameters, flops = counted(bundle.architecture, store.window)
    by_machine = json.loads(path.read_text()) if path.exists() else {}
    place = f"{machine()}, {device()}"
    measured = by_machine.setdefault(place, {})
    if bundle.digest not in measured:
        measured[bundle.digest] = _pairs_per_s(bundle, store)
        write_json_atomically(path, by_machine)
    return Cost(parameters=parameters, flops=flops, pairs_per_s=measured[bundle.digest])


def _pairs_per_s(bundle: Bundle, store: DatasetStore) -> float:
    samples = store.read(store.indices("test")[:_PAIRS].tolist())
    images = np.stack([samples.before, samples.after], axis=1)
    with torch_threads(1):
        predictor = DasnetPredictor(bundle, device="auto", precision="float32")
        predictor.distances(images[:1], samples.valid[:1])  # the first one plans its kernels
        began, done = time.perf_counter(), 0
        while not done or time.perf_counter() - began < _SECONDS:
            predictor.distances(images, samples.valid)
            done += len(images)
            if done >= 4 * _PAIRS:
                break
        return done / (time.perf_counter() - began)


def device() -> str:
    """What a predictor on "auto" computes with."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "one thread of the CPU"

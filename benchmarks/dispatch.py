"""Operators that the predictor asks torch for outside of the network: each costs a GPU's host some microseconds.

    python -m benchmarks.dispatch [--bundle synthetic] [--batch 16] [--block 2048]

One block from the middle of a larger grid is predicted on the CPU, in batches as a GPU computes them, and every call
that torch dispatches is counted, the network's own calls apart. A block that is small shows what each batch costs, a
large one what is shared by its windows.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.common import machine
from dasnet.prediction.bundle import load_bundle
from dasnet.prediction.predictor import DasnetPredictor
from tiling.grid import BlockGrid, WindowLattice


@dataclass
class Dispatched(TorchDispatchMode):
    """Operators that torch dispatches in this thread while the mode is entered, by name.

    Attributes:
        outside: of everything but the network.
        network: calls of the network's own.
    """

    outside: Counter[str] = field(default_factory=Counter)
    network: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._inside:
            self.network += 1
        else:
            self.outside[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    def apart(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """`compute`, whose calls are counted as the network's."""

        def inside(*given: Any) -> Any:
            self._inside = True
            try:
                return compute(*given)
            finally:
                self._inside = False

        return inside


@contextmanager
def counted_calls(predictor: DasnetPredictor) -> Iterator[Dispatched]:
    """The operators that `predictor` dispatches meanwhile, in the thread that calls it."""
    whole, counted = predictor._network, Dispatched()
    predictor._network = replace(whole, embed=counted.apart(whole.embed), compare=counted.apart(whole.compare))
    try:
        with counted:
            yield counted
    finally:
        predictor._network = whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="synthetic")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--block", type=int, nargs="+", default=[600, 2048])
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load_bundle(options.bundle)
    predictor = DasnetPredictor(bundle, device="cpu", precision="float32")
    predictor._batch = options.batch  # a CPU computes one window at a time
    for block in options.block:
        side = 3 * block
        lattice = WindowLattice(height=side, width=side, window=bundle.window, overlap=bundle.window // 4)
        middle = BlockGrid(height=side, width=side, size=block)[4]
        box = lattice.read_box(middle.box)
        inner = middle.box.relative_to(box)
        random = np.random.default_rng(0)
        images = random.integers(1, 255, (2, len(bundle.bands), box.height, box.width)).astype(bundle.dtype)
        valid = random.random((2, box.height, box.width)) < 0.99
        began = time.perf_counter()
        with counted_calls(predictor) as counted:
            prediction = predictor.predict(
                images,
                valid,
                origins=lattice.origins_touching(middle.box) - (box.y0, box.x0),
                taper=lattice.taper,
                crop=(inner.rows, inner.cols),
            )
        seconds = time.perf_counter() - began
        windows, calls = prediction.windows_computed, counted.outside.total()
        most = ", ".join(f"{name} {count}" for name, count in counted.outside.most_common(8))
        print(
            f"dispatch ({options.bundle}), block of {block}², {windows} windows in batches of {options.batch}: {calls} "
            f"calls outside of the network, {calls / windows:.1f} a window ({most}); the network's {counted.network}; "
            f"{seconds:.1f} s; {machine()}",
            flush=True,
        )


if __name__ == "__main__":
    main()

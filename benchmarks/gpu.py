"""How fast is a network on a GPU: bare, over one block in memory, in a whole run; and are its bytes the same twice?

    python -m benchmarks.gpu [--networks synthetic resnet50] [--precisions bfloat16 float32] [--side 8192]

The bare pass takes windows of noise through the network, both dates, to distances at full resolution, in the batches
and with the cuDNN settings of the predictor. The block is predicted from memory: normalised, blended and copied back as
well. The run is `detect` on a synthetic scene: *infer* reads, computes and writes every block. Each run is done again
with blocks of half the size, and the two probability arrays must have one SHA-256. "resnet50" and "vgg16" are the
paper's networks with random weights. Without a GPU the same is done on the CPU's local cluster.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import machine, probability_sha256, scene

if TYPE_CHECKING:
    from dasnet.prediction.bundle import Bundle
    from dasnet.prediction.network import Precision
    from dasnet.prediction.predictor import DasnetPredictor

UNTRAINED = ("resnet50", "vgg16")
SECONDS = 3.0
"""For which a measurement in this process repeats at least."""


@dataclass
class GpuWatch:
    """Share of the time in which a kernel runs, and the memory in use, as the driver tells every tenth of a second."""

    samples: list[tuple[float, int, int]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> GpuWatch:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        while not self._stop.wait(0.1):
            busy = pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu
            self.samples.append((time.time(), busy, pynvml.nvmlDeviceGetMemoryInfo(gpu).used))

    def between(self, begin: float, end: float) -> str:
        """Of the samples between two times."""
        chosen = [sample for sample in self.samples if begin <= sample[0] <= end]
        if not chosen:
            return "GPU not sampled"
        busy = sum(sample[1] for sample in chosen) / len(chosen)
        return f"GPU busy {busy:.0f} %, {max(sample[2] for sample in chosen) / 1e9:.1f} GB in use"


def bundle_file(name: str, folder: Path) -> str:
    """A shipped bundle's name, or the path of one with random weights, whose scene has hardly a change to draw."""
    from dasnet.networks.architectures import Architecture
    from dasnet.prediction.bundle import random_bundle, save_bundle

    if name not in UNTRAINED:
        return name
    bundle = replace(random_bundle(Architecture(backbone=name)), threshold=0.999)
    return str(save_bundle(folder / f"{name}.safetensors", bundle).path)


def wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def bare(bundle: Bundle, device: str, precision: Precision, batch: int) -> tuple[float, float]:
    """Pairs of windows a second, and floating-point operations of a pair."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from dasnet.networks.decoder import upsample
    from dasnet.prediction.bundle import build_model
    from dasnet.prediction.network import prepare

    on_cpu = prepare(
        build_model(bundle), in_bands=len(bundle.bands), device="cpu", precision="float32"
    )  # a GPU's kernels are not all counted alike
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        on_cpu.embed(torch.randn(2, len(bundle.bands), bundle.window, bundle.window))
    network = prepare(build_model(bundle), in_bands=len(bundle.bands), device=device, precision=precision)
    shape = (batch, len(bundle.bands), bundle.window, bundle.window)
    before, after = (torch.randn(shape, device=device) for _ in range(2))

    def forward() -> None:
        distances = network.compare(network.embed(before), network.embed(after))
        upsample(distances, height=bundle.window, width=bundle.window, stride=bundle.architecture.stride)

    settings: Any = nullcontext()
    if device == "cuda":
        settings = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), settings:
        forward()
        pairs = 0
        wait(device)
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            for _ in range(4):
                forward()
            wait(device)
            pairs += 4 * batch
        return pairs / (time.perf_counter() - began), float(counter.get_total_flops())


def of_block(predictor: DasnetPredictor, bundle: Bundle, block: int) -> float:
    """Windows a second of one block that lies in memory."""
    import numpy as np

    from tiling.grid import BlockGrid, WindowLattice

    side = 3 * block
    lattice = WindowLattice(height=side, width=side, window=bundle.window, overlap=bundle.window // 4)
    middle = BlockGrid(height=side, width=side, size=block)[4]
    box = lattice.read_box(middle.box)
    inner = middle.box.relative_to(box)
    random = np.random.default_rng(0)
    images = random.integers(1, 255, (2, len(bundle.bands), box.height, box.width), dtype=np.uint8)
    valid = np.ones((2, box.height, box.width), dtype=bool)
    origins = lattice.origins_touching(middle.box) - (box.y0, box.x0)

    def predict() -> int:
        crop = (inner.rows, inner.cols)
        return predictor.predict(images, valid, origins=origins, taper=lattice.taper, crop=crop).windows_computed

    predict()
    windows, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        windows += predict()
    return windows / (time.perf_counter() - began)


def variants(bundle: Bundle, device: str, precision: Precision, batches: list[int], replay: bool, block: int) -> None:
    """Print windows a second of one block in memory for further batches, and with the network's calls replayed."""
    from dasnet.prediction.predictor import DasnetPredictor

    for number, batch in enumerate(batches):
        for replayed in (False, True)[: 1 + replay]:
            if number or replayed:
                predictor = DasnetPredictor(bundle, device=device, precision=precision, batch=batch, replay=replayed)
                alone, _ = bare(bundle, device, precision, batch)
                rate = of_block(predictor, bundle, block)
                how = "replayed" if replayed else "as usual"
                print(f"  {precision}, batch {batch}, {how}: bare {alone:.1f}, a block {rate:.1f} pairs/s", flush=True)


def run(
    before: Path, after: Path, output: Path, bundle: str, device: str, precision: str, block: int
) -> tuple[Any, ...]:
    """Windows a second of *infer*, its seconds, those of the whole run, where they go, SHA-256 of the probability."""
    from flows.cluster.config import ClusterConfig
    from flows.detect.products import BlockStatistics
    from flows.detect.request import DetectRequest
    from flows.detect.run import run_detection
    from flows.run.directory import RunDirectory

    request = DetectRequest(
        before=str(before),
        after=str(after),
        output=output,
        bundle=bundle,
        block=block,
        precision=precision,
        cluster=ClusterConfig(kind="cuda" if device == "cuda" else "local"),
    )
    began = time.perf_counter()
    with GpuWatch() if device == "cuda" else nullcontext() as watch:
        run_detection(request)
    whole = time.perf_counter() - began
    directory = RunDirectory(output)
    seconds = (directory.describe() or {})["seconds"]["infer"]
    ended = (output / "ledger" / "infer.jsonl").stat().st_mtime
    blocks = BlockStatistics.of(directory.ledger("infer"))
    where = ", ".join(f"{name} {spent:.1f}" for name, spent in blocks.seconds.items())
    busy = watch.between(ended - seconds, ended) if watch is not None else "no GPU"
    return blocks.windows / seconds, seconds, whole, f"seconds of threads: {where}; {busy}", probability_sha256(output)


def main() -> None:
    import torch

    from dasnet.prediction.bundle import load_bundle
    from dasnet.prediction.predictor import DasnetPredictor

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["synthetic", "resnet50"])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--batches", nargs="*", type=int, default=[], help="further ones, bare and of a block alone")
    parser.add_argument("--replay", action="store_true", help="those, and the usual one, with CUDA graphs as well")
    parser.add_argument("--once", action="store_true", help="leave out the run with blocks of half the size")
    parser.add_argument("--folder", type=Path, help="for scene and runs; default: one that is removed afterwards")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = f"{torch.cuda.get_device_name()}, " if device == "cuda" else ""
    where = f"{name}torch {torch.__version__}, {machine()}"
    if device == "cpu":
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        place = options.folder or Path(temporary)
        before, after = scene(place, height=options.side, width=options.side)
        for network in options.networks:
            path = bundle_file(network, place)
            bundle = load_bundle(path)
            for precision in options.precisions:
                predictor = DasnetPredictor(bundle, device=device, precision=precision)
                batch = int(predictor.describe()["batch"])
                alone, operations = bare(bundle, device, precision, batch)
                in_memory = of_block(predictor, bundle, options.block)
                del predictor
                label = f"{network} {precision}"
                variants(bundle, device, precision, [batch, *options.batches], options.replay, options.block)
                print(
                    f"{label}: bare {alone:.1f} pairs/s ({alone * operations / 1e12:.2f} TFLOP/s, batch {batch}); a "
                    f"block in memory {in_memory:.1f} ({in_memory / alone:.2f}); {where}",
                    flush=True,
                )
                digests = []
                for block in (options.block,) if options.once else (options.block, options.block // 2):
                    rate, seconds, whole, detail, digest = run(
                        before, after, place / f"{network}-{precision}-{block}", path, device, precision, block
                    )
                    digests.append(digest)
                    print(
                        f"{label}, {options.side}², blocks of {block}: infer {rate:.1f} pairs/s ({rate / alone:.2f} of "
                        f"the bare pass) in {seconds:.1f} s, all stages {whole:.1f} s; {detail}",
                        flush=True,
                    )
                same = "yes" if len(set(digests)) == 1 else "NO"
                print(f"{label}: same bytes {same} ({', '.join(d[:12] for d in digests)})", flush=True)


if __name__ == "__main__":
    main()

"""Pixels a second of each encoder beside its accuracy: the table of docs/train.md, on one core or one GPU.

    python -m benchmarks.pareto [--networks light lite0 lite2 vgg16 resnet50] [--accuracy WORK/accuracy.json]
    python -m benchmarks.pareto --bundles lite0=water.safetensors …        # bundles in the place of random weights

A block of noise in memory goes through the predictor as in `detect`: windows of 256 px that overlap by a quarter,
normalised, embedded, compared, blended, quantised. Random weights take as long as trained ones. Each network is timed
in a process of its own, float32, and bfloat16 where the processor has instructions for it; the best of some rounds is
given, since others work on the same machine. Pixels are those of the mosaic: a window stands for 192 × 192 of them.
GFLOP are those of a pair of windows. Run it alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.common import machine

NETWORKS: dict[str, dict[str, Any]] = {
    "light": {"backbone": "mobilenet_v3", "head_channels": 96, "decoder": "half"},
    "lite0": {"backbone": "timm:tf_efficientnet_lite0", "head_channels": 96, "decoder": "half"},
    "lite2": {"backbone": "timm:tf_efficientnet_lite2", "head_channels": 96, "decoder": "half"},
    "vgg16": {"backbone": "vgg16", "head_channels": 128, "decoder": "half"},
    "resnet50": {"backbone": "resnet50", "head_channels": 512, "decoder": "half"},
    "paper": {"backbone": "resnet50", "head_channels": 512},
}
"""What is timed by its name: the recipes' networks, and the paper's, which has no decoder."""

_WINDOW = 256


def speed(name: str, file: str | None, *, rounds: int, block: int) -> list[dict[str, Any]]:
    """A line for each arithmetic: pixels a second, parameters, arithmetic of a pair of windows, size of the file."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.gpu import of_block
    from dasnet.networks.architectures import Architecture
    from dasnet.prediction.bundle import build_model, load_bundle, random_bundle, save_bundle
    from dasnet.prediction.network import Precision, prepare
    from dasnet.prediction.predictor import DasnetPredictor

    torch.set_num_threads(1)
    bundle = load_bundle(file) if file else random_bundle(Architecture(**NETWORKS[name]), window=_WINDOW)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = prepare(build_model(bundle), in_bands=len(bundle.bands), device="cpu", precision="float32")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        embeddings = network.embed(torch.randn(2, len(bundle.bands), bundle.window, bundle.window))
        network.compare(embeddings[:1], embeddings[1:])
    if file:
        megabytes = Path(file).stat().st_size / 1e6
    else:
        scratch = Path(f"/tmp/pareto-{os.getpid()}.safetensors")
        save_bundle(scratch, bundle)
        megabytes = scratch.stat().st_size / 1e6
        scratch.unlink()
    facts = {
        "network": name,
        "parameters": sum(one.numel() for one in build_model(bundle).parameters()),
        "gflop": counter.get_total_flops() / 1e9,
        "megabytes": megabytes,
    }
    lines = []
    dtype = prepare(build_model(bundle), in_bands=len(bundle.bands), device=device, precision="auto").dtype
    precisions: tuple[Precision, ...] = ("float32",) if dtype == torch.float32 else ("float32", "bfloat16")
    for precision in precisions:
        predictor = DasnetPredictor(bundle, device=device, precision=precision)
        windows = max(of_block(predictor, bundle, block) for _ in range(rounds))
        step = bundle.window - bundle.window // 4
        lines.append({**facts, "arithmetic": precision, "pixels_per_s": windows * step * step})
    return lines


def table(lines: list[dict[str, Any]], accuracy: dict[str, str]) -> str:
    """Markdown, a line for each network, the fastest first."""
    names = list(dict.fromkeys(line["network"] for line in sorted(lines, key=lambda one: -one["pixels_per_s"])))
    made = ["| network | parameters | GFLOP | file | float32, Mpx/s | bfloat16, Mpx/s | F1 on test |"]
    made.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        mine = {line["arithmetic"]: line for line in lines if line["network"] == name}
        one = next(iter(mine.values()))
        rates = [f"{mine[kind]['pixels_per_s'] / 1e6:.3g}" if kind in mine else "" for kind in ("float32", "bfloat16")]
        cells = [name, f"{one['parameters']:,}", f"{one['gflop']:.1f}", f"{one['megabytes']:.1f} MB", *rates]
        made.append(f"| {' | '.join([*cells, accuracy.get(name, '')])} |")
    return "\n".join(made)


def accuracy_of(path: Path | None) -> dict[str, str]:
    """F1 on the test windows of each task, by the name of the network that a bundle's name begins with."""
    if path is None:
        return {}
    scores: dict[str, dict[str, list[float]]] = {}
    for one in json.loads(path.read_text()):
        name = next((name for name in NETWORKS if one["bundle"].startswith(name)), None)
        if name is not None and one["what"] in ("test windows", "four test scenes"):
            scores.setdefault(name, {}).setdefault(one["task"], []).append(one["f1"])
    return {
        name: ", ".join(f"{task} {sum(values) / len(values):.3f}" for task, values in by_task.items())
        for name, by_task in scores.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--bundles", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--accuracy", type=Path, help="accuracy.json of benchmarks.accuracy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block", type=int, default=512, help="side of the block, pixels")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    files = dict(text.split("=", 1) for text in options.bundles)
    if options.one:
        lines = speed(options.one, files.get(options.one), rounds=options.rounds, block=options.block)
        print(json.dumps(lines))
        return
    lines = []
    for name in [*files, *(name for name in options.networks if name not in files)]:
        words = ["--one", name, "--rounds", str(options.rounds), "--block", str(options.block)]
        words += ["--bundles", f"{name}={files[name]}"] if name in files else []
        done = subprocess.run([sys.executable, "-m", "benchmarks.pareto", *words], check=True, stdout=subprocess.PIPE)
        lines += json.loads(done.stdout.splitlines()[-1])
        for line in lines[-2:]:
            if line["network"] == name:
                print(f"{name} {line['arithmetic']}: {line['pixels_per_s'] / 1e6:.4f} Mpx/s", flush=True)
    print(f"\n{table(lines, accuracy_of(options.accuracy))}\n\n{machine()}")


if __name__ == "__main__":
    main()

"""Largest difference from the outputs of the authors' released network, one line a backbone.

    python -m benchmarks.oracle [--oracle FOLDER] [--device cuda]

FOLDER holds outputs of the authors' released network on inputs made by a rule, which its README gives; it is not part
of this repository. `tests/dasnet/prediction/test_authors.py` holds the same to 1e-4. On a GPU float32 is float32,
without TF32.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import machine
from dasnet.prediction.authors import import_checkpoint
from dasnet.prediction.bundle import build_model, load_bundle
from tests.dasnet.prediction.test_authors import ORACLE, oracle_state

HEADS = {"spatial": "spatial", "channel": "channel", "fused": "embedding"}


def difference(oracle: Path, name: str, device: str = "cpu") -> float:
    """Largest absolute difference over all three heads: the embeddings of both dates and their distance."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, bundle = Path(folder) / f"{name}.pth", Path(folder) / f"{name}.safetensors"
        torch.save(oracle_state(name, oracle), checkpoint)
        model = build_model(load_bundle(import_checkpoint(checkpoint, bundle))).to(device)
    g = np.random.default_rng(2020)
    x0, x1 = (torch.from_numpy(g.standard_normal((1, 3, 128, 128), dtype=np.float32)).to(device) for _ in range(2))
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        dates, distances = (model.embed(x0), model.embed(x1)), model(x0, x1)
    worst = 0.0
    with np.load(oracle / f"authors_{name}_128.npz") as expected:
        for ours, theirs in HEADS.items():
            pairs = [(getattr(distances, ours), expected[f"{theirs}_distance"])]
            pairs += [(getattr(e, ours)[:, :8], expected[f"{theirs}_t{t}_first8"]) for t, e in enumerate(dates)]
            worst = max(
                worst, *(float(np.abs(got.cpu().numpy().squeeze() - want.squeeze()).max()) for got, want in pairs)
            )
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--oracle", type=Path, default=ORACLE)
    parser.add_argument("--device", default="cpu", help="cpu | cuda")
    options = parser.parse_args()
    where = machine() if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    for name in ("resnet50", "vgg16"):
        worst = difference(options.oracle, name, options.device)
        print(f"oracle {name}: max |ours − authors'| = {worst:.1e} (target 1e-4) · {where}")


if __name__ == "__main__":
    main()

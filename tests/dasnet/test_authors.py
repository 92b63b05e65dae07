"""The network against the authors' released one, and the importer of their checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dasnet.authors import convert_state, import_checkpoint, read_checkpoint
from dasnet.bundle import Bundle, build_model, load_bundle
from dasnet.calibration import Calibration
from dasnet.errors import BundleError

ORACLE = Path(__file__).resolve().parents[3] / "shared" / "oracle"
needs_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason="no ../shared/oracle beside the repository")


def oracle_state(name: str) -> dict[str, Tensor]:
    """The state dict of the oracle's rule (its README)."""
    tensors = json.loads((ORACLE / "authors_state_dict.json").read_text())[name]
    shapes = {entry["key"]: tuple(entry["shape"]) for entry in tensors}
    state = {}
    for index, key in enumerate(sorted(shapes)):
        shape, g = shapes[key], np.random.default_rng(index)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        if key.endswith("running_var"):
            value = 1 + np.float32(0.1) * g.random(shape, dtype=np.float32)
        elif key.endswith("gamma"):
            value = np.full(shape, 0.5, dtype=np.float32)
        elif len(shape) > 1:
            value = g.standard_normal(shape, dtype=np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
        else:
            scaled = np.float32(0.1) * g.standard_normal(shape, dtype=np.float32)
            value = 1 + scaled if key.endswith("weight") else scaled
        state[key] = torch.from_numpy(np.asarray(value, dtype=np.float32))
    return state


@needs_oracle
@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_outputs_are_those_of_the_authors_network(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": oracle_state(name), "epoch": 3}, tmp_path / "released.pth")
    model = build_model(load_bundle(import_checkpoint(tmp_path / "released.pth", tmp_path / "b.safetensors")))
    g = np.random.default_rng(2020)
    x0 = torch.from_numpy(g.standard_normal((1, 3, 128, 128), dtype=np.float32))
    x1 = torch.from_numpy(g.standard_normal((1, 3, 128, 128), dtype=np.float32))

    with torch.inference_mode():
        e0, e1, distances = model.embed(x0), model.embed(x1), model(x0, x1)

    with np.load(ORACLE / f"authors_{name}_128.npz") as expected:
        for ours, theirs in (("spatial", "spatial"), ("channel", "channel"), ("fused", "embedding")):
            for date, embedding in (("t0", e0), ("t1", e1)):
                got = getattr(embedding, ours)[:, :8].numpy()
                np.testing.assert_allclose(got.squeeze(), expected[f"{theirs}_{date}_first8"].squeeze(), atol=1e-4)
            got = getattr(distances, ours).numpy()
            np.testing.assert_allclose(got.squeeze(), expected[f"{theirs}_distance"].squeeze(), atol=1e-4)

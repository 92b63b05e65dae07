"""The network against the authors' released one, and the importer of their checkpoints."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dasnet.errors import BundleError
from dasnet.networks.architectures import Architecture
from dasnet.prediction.authors import convert_state, import_checkpoint
from dasnet.prediction.bundle import build_model, load_bundle, random_bundle
from dasnet.prediction.calibration import Calibration

ORACLE = Path(__file__).resolve().parents[4] / "shared" / "oracle"
needs_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason="no outputs of the authors' network at hand")


def oracle_state(name: str, folder: Path = ORACLE) -> dict[str, Tensor]:
    """The state dict of the oracle's rule (its README)."""
    tensors = json.loads((folder / "authors_state_dict.json").read_text())[name]
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


def small_authors_state(drop: str = "", **more: Tensor) -> dict[str, Tensor]:
    """A VGG16 in the authors' layout with the head at 8 channels, as an old checkpoint of several GPUs has it."""
    bundle = random_bundle(Architecture(backbone="vgg16", head_channels=8))
    state = {f"module.CNN.{key.split('.', 1)[1]}": value for key, value in bundle.state.items()}
    state["module.CNN.fc6_1.0.weight"] = state["module.CNN.embedding_layer.weight"] = torch.zeros(1)
    return {key: value for key, value in {**state, **more}.items() if not drop or drop not in key}


def test_what_the_forward_pass_never_uses_is_left_out() -> None:
    architecture, state = convert_state(small_authors_state())
    assert architecture == Architecture(backbone="vgg16", head_channels=8)
    assert set(state) == set(random_bundle(architecture).state)


def test_a_checkpoint_older_than_batch_counters_gets_them() -> None:
    expected = random_bundle(Architecture(backbone="resnet50", head_channels=8)).state
    state = {
        key.replace("backbone.", "CNN.pretrained.").replace("head.", "CNN.head."): value
        for key, value in expected.items()
        if not key.endswith("num_batches_tracked")
    }
    assert set(convert_state(state)[1]) == set(expected)


def test_missing_and_left_over_tensors_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    torch.save(small_authors_state(drop="conv51", **{"module.CNN.conv9.weight": torch.zeros(1)}), path)
    with pytest.raises(BundleError, match=r"odd\.pth.*missing head\.conv51\.0\.weight; unexpected head\.conv9\.weight"):
        import_checkpoint(path, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_a_given_calibration_goes_into_the_bundle_and_its_card(tmp_path: Path) -> None:
    torch.save(small_authors_state(), tmp_path / "c.pth")
    loose = load_bundle(import_checkpoint(tmp_path / "c.pth", tmp_path / "loose.safetensors"))
    assert "not calibrated" in loose.card
    assert [band.name for band in loose.bands] == ["blue", "green", "red"]
    assert loose.provenance["sha256"] == hashlib.sha256((tmp_path / "c.pth").read_bytes()).hexdigest()
    fitted = Calibration(slope=7.0, intercept=-3.0)
    path = import_checkpoint(tmp_path / "c.pth", tmp_path / "b.safetensors", calibration=fitted, threshold=0.4)
    tight = load_bundle(path)
    assert (tight.calibration, tight.threshold) == (fitted, 0.4)
    assert "not calibrated" not in tight.card


class Payload:
    """What a hostile checkpoint would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


@pytest.mark.parametrize(
    "content", [Payload(), {"state_dict": Payload()}, [torch.zeros(1)], {"epoch": 3}, {"a.weight": torch.zeros(1)}]
)
def test_what_is_no_checkpoint_of_theirs_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(BundleError):
        import_checkpoint(tmp_path / "x.pth", tmp_path / "b.safetensors")


def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    for name in ("text.pth", "absent.pth"):
        with pytest.raises(BundleError, match=name):
            import_checkpoint(tmp_path / name, tmp_path / "b.safetensors")

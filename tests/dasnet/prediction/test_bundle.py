"""Bundles: what goes in comes out, and what cannot be used is refused with its name and values."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dasnet.errors import BundleError
from dasnet.networks.architectures import Architecture
from dasnet.prediction.bundle import Bundle, build_model, load_bundle, random_bundle, save_bundle
from dasnet.prediction.calibration import Calibration
from dasnet.prediction.header import BUNDLES, Band, bundle_path, read_header

LIGHT = Architecture(backbone="mobilenet_v3", in_bands=2, head_channels=8)
BANDS = (Band(name="red", mean=100.0, std=40.0), Band(name="nir", mean=3000.5, std=1200.0))


@pytest.fixture
def bundle() -> Bundle:
    made = random_bundle(LIGHT, BANDS, seed=3, dtype="uint16", window=128)
    return replace(
        made, resolution=0.6, provenance={"scenes": [1, 2]}, metrics={"f1": 0.91}, card="# Card\nfür Menschen"
    )


def test_a_bundle_comes_back_as_it_was_written(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "b.safetensors"
    saved = save_bundle(path, bundle, half=False)
    loaded = load_bundle(path)
    for name in ("architecture", "bands", "dtype", "threshold", "calibration", "window", "resolution", "card"):
        assert getattr(loaded, name) == getattr(bundle, name)
    assert (loaded.provenance, loaded.metrics) == (bundle.provenance, bundle.metrics)
    assert all(torch.equal(loaded.state[key], value) for key, value in bundle.state.items())
    assert loaded.digest == saved.digest
    assert loaded.path == path
    assert [entry.name for entry in path.parent.iterdir()] == ["b.safetensors"], "no temporary file stays"
    assert not build_model(loaded).training


def test_half_precision_halves_the_file_and_loads_as_float32(bundle: Bundle, tmp_path: Path) -> None:
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    save_bundle(full, bundle, half=False)
    loaded = save_bundle(half, bundle)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    for key, value in bundle.state.items():
        assert loaded.state[key].dtype == value.dtype
        expected = value.half().float() if value.is_floating_point() and value.ndim > 1 else value
        assert torch.equal(loaded.state[key], expected)
    assert save_bundle(full, loaded).digest == loaded.digest, "the same bundle, the same bytes"


def test_an_interrupted_write_leaves_the_old_bundle(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.safetensors"
    before = save_bundle(path, bundle).digest

    def full_disk(tensors: object, filename: Path, metadata: object) -> None:
        filename.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dasnet.prediction.bundle.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_bundle(path, replace(bundle, threshold=0.9))
    assert load_bundle(path).digest == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.safetensors"]


def test_an_unknown_name_lists_the_shipped_bundles() -> None:
    with pytest.raises(BundleError, match="'no-such'") as refusal:
        load_bundle("no-such")
    for shipped in BUNDLES.glob("*.safetensors"):
        assert shipped.stem in str(refusal.value)
        assert bundle_path(shipped.stem) == shipped
    with pytest.raises(BundleError, match=r"no-such\.safetensors: no such file"):
        load_bundle("no-such.safetensors")


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["dasnet"])
    change(document)
    save_file(load_file(path), path, metadata={"dasnet": json.dumps(document)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), "version 2.*reads 1"),
        (lambda d: d.pop("version"), "'version'"),
        (lambda d: d.pop("threshold"), "'threshold'"),
        (lambda d: d.update(threshold=1.0), "threshold 1.0"),
        (lambda d: d.update(threshold="high"), "threshold 'high'"),
        (lambda d: d["calibration"].update(slope=0), "slope 0"),
        (lambda d: d["calibration"].update(slope=float("nan")), "slope nan"),
        (lambda d: d["bands"].pop(), "takes 2 bands, but 1 are described: red"),
        (lambda d: d["bands"][0].update(std=0), "band red.*std 0"),
        (lambda d: d["bands"][0].update(mean=float("inf")), "band red: mean inf"),
        (lambda d: d["bands"][0].pop("std"), "std"),
        (lambda d: d["bands"][1].update(name="red"), "two bands"),
        (lambda d: d.update(dtype="int64"), "'int64'"),
        (lambda d: d.update(window=8), "window 8"),
        (lambda d: d.update(resolution=-1.0), "resolution -1.0"),
        (lambda d: d.update(window_overlap=d["window"]), r"overlap (\d+) of windows .* less than \1 px"),
        (lambda d: d.update(window_overlap=32.5), r"overlap 32\.5"),
        (lambda d: d["architecture"].update(backbone="resnet18"), "resnet18"),
        (lambda d: d["architecture"].update(depth=3), "depth"),
        (lambda d: d["architecture"].update(in_bands=3), "takes 3 bands"),
        (lambda d: d["architecture"].update(head_channels=16), r"head\.conv5a\.1\.weight is \(8,\) instead of \(16,\)"),
        (lambda d: d["architecture"].update(attention="none"), r"unexpected head\.sa\.gamma"),
        (lambda d: d.update(architecture=[]), "b.safetensors"),
    ],
)
def test_metadata_that_make_no_sense_are_refused(
    bundle: Bundle, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = tmp_path / "b.safetensors"
    save_bundle(path, bundle)
    rewritten(path, change)
    readers = [load_bundle] if "head" in message else [load_bundle, read_header]
    for read in readers:
        with pytest.raises(BundleError, match=message) as refusal:
            read(path)
        assert str(path) in str(refusal.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_refused(bundle: Bundle, tmp_path: Path, value: float) -> None:
    path = tmp_path / "b.safetensors"
    save_bundle(path, bundle)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["head.conv8.1.weight"][0, 0] = value
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(BundleError, match=r"NaN or infinite in head\.conv8\.1\.weight"):
        load_bundle(path)


def test_weights_beyond_half_precision_are_refused_when_written(bundle: Bundle, tmp_path: Path) -> None:
    state = {**bundle.state, "head.conv8.1.weight": bundle.state["head.conv8.1.weight"] + 1e5}
    with pytest.raises(BundleError, match="half=False"):
        save_bundle(tmp_path / "b.safetensors", replace(bundle, state=state))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(BundleError, match="import-authors"):
        load_bundle(path)


def test_other_files_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(BundleError, match="no 'dasnet' metadata"):
        load_bundle(path)
    save_bundle(path, bundle)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        load_bundle(path)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        load_bundle(path)


def test_random_bundles_are_seeded() -> None:
    one, same, other = (random_bundle(LIGHT, BANDS, seed=seed) for seed in (1, 1, 2))
    key = "head.conv8.1.weight"
    assert torch.equal(one.state[key], same.state[key])
    assert not torch.equal(one.state[key], other.state[key])
    assert one.calibration == Calibration(slope=4.0, intercept=-4.0)

"""A bundle's header: what a plan needs of a model, without the library that computes it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from dasnet.errors import BundleError
from dasnet.networks.architectures import Architecture, PeerArchitecture
from dasnet.prediction.bundle import load_bundle, random_bundle, save_bundle
from dasnet.prediction.header import BUNDLES, BundleHeader, read_header, require_finite_weights

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", sorted(path.stem for path in BUNDLES.glob("*.safetensors")))
def test_a_header_is_its_bundle_without_the_weights(name: str) -> None:
    header, bundle = read_header(name), load_bundle(name)
    assert {field.name: getattr(header, field.name) for field in fields(BundleHeader)} == {
        field.name: getattr(bundle, field.name) for field in fields(BundleHeader)
    }


def test_a_file_that_was_cut_off_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    save_bundle(path, random_bundle(Architecture(backbone="mobilenet_v3", head_channels=8)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        read_header(path)


def test_headers_and_methods_are_read_without_torch() -> None:
    """Planning and refusing wait for no library that they do not need."""
    heavy = {"torch", "scipy", "skimage", "sklearn"}
    code = (
        "import sys, dasnet.prediction.header as h, dasnet.baselines.methods; h.read_header('synthetic'); "
        f"print(*({heavy!r} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_weights_that_are_not_numbers_are_refused_without_torch(tmp_path: Path) -> None:
    bundle = random_bundle(PeerArchitecture(method="fc-siam-diff", width=4, in_bands=3))
    saved = save_bundle(tmp_path / "sound.safetensors", bundle).path
    assert saved is not None
    require_finite_weights(saved)
    tensors = load_file(saved)
    name = next(key for key, values in tensors.items() if values.ndim > 1)
    tensors[name][0] = np.nan
    with safe_open(saved, framework="numpy") as file:
        save_file(tensors, tmp_path / "broken.safetensors", metadata=file.metadata())
    with pytest.raises(BundleError, match=rf"broken\.safetensors: weights are NaN or infinite in {re.escape(name)}:"):
        require_finite_weights(tmp_path / "broken.safetensors")

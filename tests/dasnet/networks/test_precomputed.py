"""Precomputed embeddings behind the interface of networks, against arithmetic on the vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dasnet.networks.architectures import architecture_from_dict, title_of
from dasnet.networks.methods import build_network
from dasnet.networks.precomputed import PrecomputedArchitecture
from dasnet.prediction.bundle import load_bundle, random_bundle, save_bundle
from dasnet.prediction.network import prepare
from dasnet.prediction.predictor import DasnetPredictor
from tests.dasnet.baselines.test_embeddings import cosine_distance, unit_vectors


@pytest.mark.parametrize("measure", ["cosine", "l2"])
def test_distances_are_those_of_unit_vectors(measure: str) -> None:
    random = np.random.default_rng(1)
    before, after = (unit_vectors(random, 12, 2, 6, 7) for _ in range(2))
    expected = cosine_distance(before, after) if measure == "cosine" else np.linalg.norm(before - after, axis=0)
    network = build_network(architecture_from_dict({"embedding": measure, "in_bands": 12}))
    # lengths do not matter
    pair = [torch.from_numpy(np.moveaxis(f * v, 0, 1)).float() for f, v in ((3, before), (0.5, after))]
    found = network.distance(*(network.features(images) for images in pair))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    (output,) = network.outputs(torch.cat(pair))
    torch.testing.assert_close(output, found)


def test_narrow_arithmetic_is_not_used() -> None:
    network = build_network(PrecomputedArchitecture(embedding="cosine", in_bands=4))
    assert prepare(network.eval(), in_bands=4, device="cpu", precision="bfloat16").dtype == torch.float32


def test_a_bundle_without_weights_survives_its_file(tmp_path: Path) -> None:
    bundle = random_bundle(PrecomputedArchitecture(embedding="l2", in_bands=3), dtype="float32")
    written = save_bundle(tmp_path / "mine.safetensors", bundle)
    assert written.architecture == bundle.architecture
    assert not load_bundle(tmp_path / "mine.safetensors").state
    assert title_of(written.architecture) == "Precomputed embeddings of 3 bands compared by l2"
    vectors = np.random.default_rng(2).normal(size=(2, 1, 3, 64, 64)).astype(np.float32)
    pair = np.moveaxis(vectors, 1, 0)
    valid = np.ones((1, 2, 64, 64), dtype=bool)
    found = DasnetPredictor(written, device="cpu").distances(pair, valid)[0, 0]
    unit = pair[0] / np.linalg.norm(pair[0], axis=1, keepdims=True)
    np.testing.assert_allclose(found, np.linalg.norm(unit[0] - unit[1], axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"embedding": "manhattan", "in_bands": 4}, "none of cosine, l2"),
        ({"embedding": "l2", "in_bands": 1}, "two bands or more"),
        ({"embedding": "l2"}, "not \\['embedding'\\]"),
        ({"embedding": "l2", "in_bands": 4, "width": 3}, "width"),
    ],
)
def test_what_is_no_description_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        architecture_from_dict(values)

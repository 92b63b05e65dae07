"""A quantised graph in a bundle: the same bytes whoever makes it, the same bits whoever computes it."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open

pytest.importorskip("openvino", reason="the extra int8 is not installed")
pytest.importorskip("nncf", reason="the extra int8 is not installed")

from dasnet.errors import BundleError, PredictorError
from dasnet.networks.architectures import Architecture, PeerArchitecture
from dasnet.prediction.bundle import Bundle, load_bundle, random_bundle, save_bundle
from dasnet.prediction.header import METADATA_KEY, read_header
from dasnet.prediction.network import prepare_bundle
from dasnet.prediction.predictor import DasnetPredictor
from dasnet.prediction.quantised import description as descriptions
from dasnet.prediction.quantised.description import QuantisedDescription
from dasnet.prediction.quantised.graph import CONSTANTS, KEYS, TOPOLOGY, graph_among, require_own_operators
from dasnet.prediction.quantised.quantising import network_inputs, quantised_graph

SIDE = 64


def images_of(bundle: Bundle, count: int, *, seed: int = 0) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    return network_inputs(bundle, images, np.ones((count, SIDE, SIDE), dtype=bool))


@pytest.fixture(scope="module")
def plain() -> Bundle:
    return random_bundle(Architecture(backbone="timm:resnet10t", head_channels=16, decoder="half"), window=SIDE)


@pytest.fixture(scope="module")
def bundle(plain: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    graph = quantised_graph(plain, images_of(plain, 4), dataset_sha256="d" * 64)
    path = tmp_path_factory.mktemp("quantised") / "int8.safetensors"
    return save_bundle(path, replace(plain, quantised=graph.description, quantised_graph=graph), half=False)


def test_a_bundle_brings_its_graph_along(plain: Bundle, bundle: Bundle) -> None:
    assert bundle.path is not None and bundle.quantised_graph is not None and bundle.quantised is not None
    header = read_header(bundle.path)
    assert header.quantised == bundle.quantised == bundle.quantised_graph.description
    assert header.quantised.images == 4 and header.quantised.side == SIDE
    assert header.quantised.topology_bytes == len(bundle.quantised_graph.topology)
    assert all(torch.equal(bundle.state[key], value) for key, value in plain.state.items())
    assert not set(KEYS) & set(bundle.state)
    again = save_bundle(bundle.path.with_name("again.safetensors"), bundle, half=False)
    assert again.digest == bundle.digest


def test_the_same_images_make_the_same_bytes() -> None:
    small = random_bundle(PeerArchitecture(method="fc-siam-diff", width=4), window=SIDE)
    one, again, other = (
        quantised_graph(small, images_of(small, 3, seed=seed), dataset_sha256="d" * 64) for seed in (0, 0, 1)
    )
    assert again.description == one.description
    assert other.description.sha256 != one.description.sha256


@pytest.mark.parametrize("name", ["synthetic", "water-extent"])
def test_a_bundle_without_a_graph_says_what_it_said(name: str) -> None:
    bundle = load_bundle(name)
    assert bundle.path is not None and bundle.quantised is None
    with safe_open(bundle.path, framework="numpy") as file:
        assert json.loads(bundle.to_json()) == json.loads(file.metadata()[METADATA_KEY])


def test_integers_answer_nearly_as_the_network_does(bundle: Bundle) -> None:
    """Against torch's float32 on images that the ranges were not taken from."""
    exact = prepare_bundle(bundle, side=SIDE, device="cpu", precision="float32")
    integers = prepare_bundle(bundle, side=SIDE, device="cpu", precision="int8")
    with torch.inference_mode():
        for image in map(torch.from_numpy, images_of(bundle, 3, seed=7)):
            expected, answer = exact.embed(image), integers.embed(image)
            assert answer.shape == expected.shape and answer.dtype == torch.float32
            assert not torch.equal(answer, expected)
            assert float((answer * expected).sum(1).mean()) > 0.9  # both of unit length


@pytest.mark.parametrize("side", [96, 160])
def test_windows_of_other_sides_are_taken_where_the_graph_answers_for_them(bundle: Bundle, side: int) -> None:
    assert bundle.quantised is not None and bundle.quantised.multiple in (8, 16, 32)
    integers = prepare_bundle(bundle, side=side, device="cpu", precision="int8")
    exact = prepare_bundle(bundle, side=side, device="cpu", precision="float32")
    image = torch.from_numpy(np.random.default_rng(side).standard_normal((1, 3, side, side), dtype=np.float32))
    with torch.inference_mode():
        assert float((integers.embed(image) * exact.embed(image)).sum(1).mean()) > 0.9


def block(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    random = np.random.default_rng(3)
    valid = np.ones((2, height, width), dtype=bool)
    valid[0, :9, :30] = False
    return random.integers(0, 256, (2, 3, height, width), dtype=np.uint8), valid


def blended(predictor: DasnetPredictor, rows: slice, origins: list[tuple[int, int]]) -> NDArray[np.uint8]:
    images, valid = block(160, 128)
    taper = np.full(SIDE, 0.5, dtype=np.float32)
    places = np.array([(y - rows.start, x) for y, x in origins], dtype=np.int64)
    crop = (slice(0, rows.stop - rows.start), slice(0, 128))
    return predictor.predict(
        images[..., rows, :], valid[..., rows, :], origins=places, taper=taper, crop=crop
    ).probability


def test_bits_depend_neither_on_the_cut_nor_on_the_lanes(bundle: Bundle) -> None:
    predictor = DasnetPredictor(bundle, device="cpu", precision="int8")
    origins = [(y, x) for y in (0, 48, 96) for x in (0, 32, 64)]
    whole = blended(predictor, slice(0, 160), origins)
    assert len(np.unique(whole[whole != 255])) > 20
    # rows 112 … 159 are covered by the last row of windows alone
    assert np.array_equal(blended(predictor, slice(96, 160), origins[6:])[:, 16:], whole[:, 112:])
    spread = DasnetPredictor(bundle, device="cpu", precision="int8")
    spread.spread(3)
    assert np.array_equal(blended(spread, slice(0, 160), origins), whole)
    with ThreadPoolExecutor(3) as lanes:
        together = list(lanes.map(lambda _: blended(predictor, slice(0, 160), origins), range(3)))
    assert all(np.array_equal(one, whole) for one in together)


def test_bits_depend_neither_on_the_batch_nor_on_the_process(bundle: Bundle) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 2, 3, SIDE, SIDE), dtype=np.uint8)
    valid = np.ones((3, 2, SIDE, SIDE), dtype=bool)
    predictor = DasnetPredictor(bundle, device="cpu", precision="int8")
    together = predictor.distances(images, valid)
    apart = np.concatenate([predictor.distances(images[n : n + 1], valid[n : n + 1]) for n in (2, 0, 1)])
    assert np.array_equal(together, apart[[1, 2, 0]])
    program = (
        "import sys, hashlib, numpy as np; from dasnet.prediction.bundle import load_bundle; "
        "from dasnet.prediction.predictor import DasnetPredictor; "
        "images = np.random.default_rng(1).integers(0, 256, (3, 2, 3, 64, 64), dtype=np.uint8); "
        "predictor = DasnetPredictor(load_bundle(sys.argv[1]), device='cpu', precision='int8'); "
        "distances = predictor.distances(images, np.ones((3, 2, 64, 64), dtype=bool)); "
        "print(distances.tobytes().hex())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(bundle.path)], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == together.tobytes().hex()


def test_the_arithmetic_says_who_computes(bundle: Bundle) -> None:
    described = DasnetPredictor(bundle, device="cpu", precision="int8").describe()
    assert described["precision"] == "int8"
    assert "OpenVINO 20" in described["device"]
    exact = DasnetPredictor(bundle, device="cpu", precision="float32").describe()
    assert exact["precision"] == "float32" and "OpenVINO" not in exact["device"]


def test_auto_takes_integers_only_where_they_were_measured_to_be_fastest(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(**milliseconds: float) -> Bundle:
        assert bundle.quantised is not None and bundle.quantised_graph is not None
        described = replace(bundle.quantised, milliseconds=milliseconds)
        return replace(
            bundle, quantised=described, quantised_graph=replace(bundle.quantised_graph, description=described)
        )

    def chosen(one: Bundle, side: int = SIDE) -> str:
        return prepare_bundle(one, side=side, device="cpu").precision

    without = chosen(bundle)
    assert without in ("float32", "bfloat16")
    fast = measured(float32=9.0, bfloat16=7.0, int8=5.0)
    assert chosen(fast) == "int8"
    assert chosen(measured(float32=9.0, bfloat16=4.0, int8=5.0)) == without
    assert chosen(fast, SIDE + 4) == without
    monkeypatch.setattr(descriptions, "runtime_lacks", lambda: ["openvino"])
    assert chosen(fast) == without


def test_what_cannot_compute_in_integers_is_refused(
    plain: Bundle, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PredictorError, match=r"no quantised graph.*dasnet quantise"):
        DasnetPredictor(plain, device="cpu", precision="int8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(PredictorError, match="int8 is computed on CPUs, not on cuda"):
        DasnetPredictor(bundle, device="cuda", precision="int8")
    with pytest.raises(BundleError, match=r"windows of 64 px.*not of 68 px"):
        DasnetPredictor(bundle, device="cpu", precision="int8", window=68)
    monkeypatch.setattr(descriptions.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BundleError, match=r"OpenVINO; not installed here: openvino; .*dasnet-region\[int8\]"):
        DasnetPredictor(bundle, device="cpu", precision="int8")


def test_a_graph_that_is_not_the_described_one_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.quantised_graph is not None and bundle.quantised is not None
    tensors = bundle.quantised_graph.tensors()
    changed = {**tensors, CONSTANTS: tensors[CONSTANTS].flip(0)}
    with pytest.raises(BundleError, match="the header describes"):
        graph_among(changed, bundle.quantised)
    with pytest.raises(BundleError, match="header describes none"):
        graph_among(tensors, None)
    with pytest.raises(BundleError, match="holds nothing, the header describes one"):
        graph_among({}, bundle.quantised)
    with pytest.raises(ValueError, match="a quantised graph has"):
        QuantisedDescription.from_dict({"side": 64})
    with pytest.raises(ValueError, match="side of a quantised graph must be 1 or more, not 0"):
        replace(bundle.quantised, side=0)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'version="opset1"', b'version="extension"', "operators that are not taken"),
        (b'type="Convolution"', b'type="ReadValue"', r"not taken: ReadValue \(opset1\)"),
        (b"<net", b"<!DOCTYPE net><net", "entities"),
        (b"</net>", b"", "no XML"),
    ],
)
def test_operators_that_could_run_code_or_remember_are_refused(
    bundle: Bundle, old: bytes, new: bytes, reason: str
) -> None:
    assert bundle.quantised_graph is not None
    topology = bundle.quantised_graph.topology
    require_own_operators(topology)
    assert old in topology
    with pytest.raises(BundleError, match=reason):
        require_own_operators(topology.replace(old, new, 1))
    assert TOPOLOGY in KEYS


def test_a_network_that_looks_at_both_dates_at_once_is_not_quantised() -> None:
    early = random_bundle(PeerArchitecture(method="fc-ef", width=8), window=SIDE)
    with pytest.raises(BundleError, match="looks at both at once: there is nothing to quantise"):
        quantised_graph(early, images_of(early, 1), dataset_sha256="d" * 64)


@pytest.mark.parametrize("method", ["fc-siam-diff", "tinycd"])
def test_what_a_network_keeps_of_a_date_may_be_many_tensors(method: str) -> None:
    several = random_bundle(PeerArchitecture(method=method, width=8), window=SIDE)  # type: ignore[arg-type]
    graph = quantised_graph(several, images_of(several, 2), dataset_sha256="d" * 64)
    assert graph.description.answers > 1
    quantised = replace(several, quantised=graph.description, quantised_graph=graph)
    integers = prepare_bundle(quantised, side=SIDE, device="cpu", precision="int8")
    exact = prepare_bundle(quantised, side=SIDE, device="cpu", precision="float32")
    before, after = map(torch.from_numpy, images_of(several, 2, seed=5))
    with torch.inference_mode():
        answer = integers.compare(integers.embed(before), integers.embed(after))
        expected = exact.compare(exact.embed(before), exact.embed(after))
    assert answer.shape == expected.shape
    assert float((answer - expected).abs().mean()) < 0.2

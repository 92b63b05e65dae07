"""A graph of somebody else: what becomes a bundle, and what is refused before anything is written."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from dasnet.errors import BundleError, PredictorError
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.prediction.bundle import Bundle, load_bundle
from dasnet.prediction.header import METADATA_KEY, Band
from dasnet.prediction.importing.description import Reading
from dasnet.prediction.importing.onnx_bundle import import_model
from dasnet.prediction.predictor import DasnetPredictor
from tests.dasnet.graphs import STACKED, write_graph

BANDS = tuple(Band(name=name, mean=mean, std=20.0) for name, mean in (("red", 90.0), ("green", 80.0), ("blue", 70.0)))
READING = Reading(inputs="stacked", output="probability", bands=BANDS, window=64)
SIAMESE = replace(READING, inputs="siamese")
EMBED = replace(READING, inputs="embed", output=None, distance="l2")
_TWO = "(float[N,3,H,W] a, float[N,3,H,W] b) => (float[N,3,H,W] y) { y = Sub(a, b) }"


def network_of(bundle: Bundle) -> ImportedArchitecture:
    assert isinstance(bundle.architecture, ImportedArchitecture)
    return bundle.architecture


def test_its_map_is_its_own_answer_on_normalised_values(tmp_path: Path) -> None:
    file = write_graph(tmp_path / "difference.onnx", STACKED)
    bundle = import_model(file, tmp_path / "b.safetensors", READING).bundle
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 2, 3, 64, 64), dtype=np.uint8)
    valid = np.ones((4, 2, 64, 64), dtype=np.bool_)
    distances = DasnetPredictor(bundle).distances(images, valid)[:, 0]
    difference = np.abs(images[:, 1].astype(float) - images[:, 0]) / 20
    assert np.abs(distances / 2 - np.tanh(difference.mean(axis=1))).max() < 1e-6
    assert network_of(bundle).multiple == 1 and not network_of(bundle).fixed_batch
    assert load_bundle(tmp_path / "b.safetensors").state["graph"].numpy().tobytes() == file.read_bytes()
    assert bundle.provenance["sha256"] == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    assert "not calibrated" in bundle.card


def test_lanes_compute_the_bits_of_one(tmp_path: Path) -> None:
    file = write_graph(tmp_path / "difference.onnx", STACKED)
    bundle = import_model(file, tmp_path / "b.safetensors", READING).bundle
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 128, 192), dtype=np.uint8)
    asked: dict[str, Any] = {
        "valid": np.ones((2, 128, 192), dtype=np.bool_),
        "origins": np.array([(y, x) for y in (0, 32, 64) for x in (0, 64, 128)]),
        "taper": np.linspace(0.1, 1, 64, dtype=np.float32),
        "crop": (slice(0, 128), slice(0, 192)),
    }
    one, several = DasnetPredictor(bundle), DasnetPredictor(bundle)
    several.spread(3)
    assert np.array_equal(one.predict(images, **asked).probability, several.predict(images, **asked).probability)
    assert "ONNX Runtime" in one.describe()["device"]


def test_a_threshold_is_said_on_the_output_itself(tmp_path: Path) -> None:
    file = write_graph(tmp_path / "difference.onnx", STACKED)
    bundle = import_model(file, tmp_path / "b.safetensors", replace(READING, threshold=0.3)).bundle
    assert bundle.cut / 2 == pytest.approx(0.3, abs=0.005)  # to a stored level
    with pytest.raises(BundleError, match=r"threshold 1\.5 lies outside"):
        import_model(file, tmp_path / "c.safetensors", replace(READING, threshold=1.5))


def test_one_of_several_outputs_is_read_in_its_own_type(tmp_path: Path) -> None:
    both = STACKED.replace("(float[N,1,H,W] p)", "(float[N,1,H,W] mean, float[N,1,H,W] p)").replace(
        "float[N", "float16[N"
    )
    file = write_graph(tmp_path / "both.onnx", both)
    with pytest.raises(BundleError, match=r"has 2 outputs: name one of 'mean' \(N, 1, H, W\) float16; 'p'"):
        import_model(file, tmp_path / "b.safetensors", READING)
    bundle = import_model(file, tmp_path / "b.safetensors", replace(READING, output_name="p")).bundle
    images = np.random.default_rng(0).integers(90, 110, (1, 2, 3, 64, 64), dtype=np.uint8)
    distances = DasnetPredictor(bundle).distances(images, np.ones((1, 2, 64, 64), dtype=np.bool_))[:, 0]
    difference = np.abs(images[:, 1].astype(float) - images[:, 0]) / 20
    assert network_of(bundle).input_type == "float16"
    assert np.abs(distances / 2 - np.tanh(difference.mean(axis=1))).max() < 2e-3


def test_a_graph_of_one_window_at_a_time_and_of_one_size_is_taken_as_it_is(tmp_path: Path) -> None:
    fixed = STACKED.replace("N,", "1,").replace("H,W", "64,64")
    reading = replace(READING, window=None)
    bundle = import_model(write_graph(tmp_path / "f.onnx", fixed), tmp_path / "b.safetensors", reading).bundle
    assert bundle.window == 64 and network_of(bundle).fixed_batch and network_of(bundle).multiple == 0


def test_a_coarser_output_is_laid_where_it_is_said_to_lie(tmp_path: Path) -> None:
    pooled = STACKED.replace(
        "p = Tanh(mean)", "fine = Tanh(mean) p = AveragePool<kernel_shape=[4,4],strides=[4,4]>(fine)"
    )
    file = write_graph(tmp_path / "coarse.onnx", pooled.replace("(float[N,1,H,W] p)", "(float[N,1,h,w] p)"))
    with pytest.raises(BundleError, match=r"are 4 px apart.*--offset, 0 for .* 1.5 for patches"):
        import_model(file, tmp_path / "b.safetensors", READING)
    bundle = import_model(file, tmp_path / "b.safetensors", replace(READING, offset=1.5)).bundle
    assert (network_of(bundle).output_stride, network_of(bundle).multiple) == (4, 4)
    images = np.full((1, 2, 3, 64, 64), 100, dtype=np.uint8)
    images[0, 1, :, :, 32:] = 200
    row = DasnetPredictor(bundle).distances(images, np.ones((1, 2, 64, 64), dtype=np.bool_))[0, 0, 20]
    assert (np.diff(row) >= 0).all() and row[31] + row[32] == pytest.approx(row[0] + row[-1], abs=1e-5)


_RANDOM = "<int64[1] channels = {1}> { before, after = Split<axis=1, num_outputs=2>(x) "
BAD: dict[str, tuple[str, Reading, str]] = {
    "other number of inputs": (STACKED, SIAMESE, "takes 1 inputs, 'x'.*siamese means two inputs"),
    "two inputs for one": (_TWO, READING, "takes 2 inputs, 'a'.*stacked means one input"),
    "other bands": (
        STACKED,
        replace(READING, bands=BANDS[:2]),
        r"has 6 channels, but inputs stacked of 2 bands.* are 4",
    ),
    "dates in the place of a stack": (STACKED, EMBED, "has 6 channels, but inputs embed of 3 bands"),
    "no image": ("(float[N,6] x) => (float[N,6] p) { p = Tanh(x) }", READING, "has no four axes"),
    "no rank": ("(float x) => (float p) { p = Tanh(x) }", READING, "has no four axes"),
    "integers": ("(int64[N,6,H,W] x) => (int64[N,6,H,W] p) { p = Abs(x) }", READING, "int64 are not all of one of"),
    "a map of classes": (
        "(float[N,6,H,W] x) => (float[N,6,H,W] p) { p = Softmax<axis=1>(x) }",
        READING,
        "no map of change",
    ),
    "one answer an image": (
        "(float[N,6,H,W] x) => (float[N,1,1,1] p) { m = GlobalMaxPool(x) "
        "s = ReduceMax<keepdims=1>(m, channels) p = Sigmoid(s) }".replace("{ m", "<int64[1] channels = {1}> { m"),
        replace(READING, window=64),
        "are 64 px apart",
    ),
    "a fixed batch": (STACKED.replace("N,", "4,"), READING, "have a fixed batch"),
    "a fixed size": (STACKED.replace("H,W", "96,96"), READING, "fixed size of 96 px, so the window is that and not 64"),
    "no square": (STACKED.replace("H,W", "96,64"), replace(READING, window=None), "are not square"),
    "another output": (STACKED, replace(READING, output_name="q"), "has no output 'q': name one of 'p'"),
    "another input": (STACKED, replace(READING, input_names=("z",)), "has no input z, but 'x'"),
    "no probability": (STACKED.replace("p = Tanh(mean)", "p = Identity(mean)"), READING, r"in \[0, 1\], but reaches"),
    "no distance": (
        STACKED.replace("p = Tanh(mean)", "p = Neg(mean)"),
        replace(READING, output="distance"),
        "from 0 on, but reaches down to -",
    ),
    "NaN": (STACKED.replace("p = Tanh(mean)", "n = Neg(mean) m = Sub(n, mean) p = Log(m)"), READING, "holds NaN"),
    "what depends on the batch": (
        STACKED.replace(
            "p = Tanh(mean)", "b = ReduceMean<keepdims=1>(mean, zero) c = Mul(b, mean) p = Tanh(c)"
        ).replace("channels = {1}", "channels = {1}, int64[1] zero = {0}"),
        READING,
        "depends on the other windows of the batch",
    ),
    "chance": (
        STACKED.replace("p = Tanh(mean)", "r = RandomUniformLike(mean) s = Mul(r, mean) p = Tanh(s)"),
        READING,
        "the same images twice",
    ),
    "a size that does not fit": (
        STACKED.replace("p = Tanh(mean)", "t = Tanh(mean) p = Reshape(t, shape)").replace(
            "channels = {1}", "channels = {1}, int64[4] shape = {1, 1, 96, 96}"
        ),
        READING,
        r"windows of 64 px: the graph does not run for x \(1, 6, 64, 64\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_as_said_is_refused_with_both_sides(case: str, tmp_path: Path) -> None:
    text, reading, message = BAD[case]
    file = write_graph(tmp_path / "bad.onnx", text)
    with pytest.raises(BundleError, match=message) as refused:
        import_model(file, tmp_path / "b.safetensors", reading)
    assert str(file) in str(refused.value) and not (tmp_path / "b.safetensors").exists()


def test_a_library_of_operators_is_never_asked_for(tmp_path: Path) -> None:
    text = STACKED.replace("p = Tanh(mean)", "p = somebody.DeformConv(mean)")
    file = write_graph(tmp_path / "own.onnx", text, domains=', "somebody": 1')
    with pytest.raises(BundleError, match=r"somebody::DeformConv.*no library is ever loaded"):
        import_model(file, tmp_path / "b.safetensors", READING)


def test_one_inside_a_branch_is_seen_too(tmp_path: Path) -> None:
    text = STACKED.replace(
        "p = Tanh(mean)",
        "p = If(yes) <then_branch = one () => (float[N,1,H,W] t) { t = somebody.Evil(mean) }, "
        "else_branch = other () => (float[N,1,H,W] e) { e = Tanh(mean) }>",
    ).replace("channels = {1}", "channels = {1}, bool yes = {0}")
    file = write_graph(tmp_path / "own.onnx", text, domains=', "somebody": 1')
    with pytest.raises(BundleError, match="somebody::Evil"):
        import_model(file, tmp_path / "b.safetensors", READING)


def test_operators_that_are_newer_than_the_runtime_are_named(tmp_path: Path) -> None:
    file = write_graph(tmp_path / "new.onnx", STACKED, opset=99)
    with pytest.raises(BundleError, match=r"ONNX Runtime [\d.]+ does not take it.*99"):
        import_model(file, tmp_path / "b.safetensors", READING)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no graph", b"\x80\x02}q\x00."])
def test_what_is_no_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="no file of ONNX"):
        import_model(tmp_path / "x.onnx", tmp_path / "b.safetensors", READING)
    with pytest.raises(BundleError, match=r"nothing.onnx cannot be read: No such file"):
        import_model(tmp_path / "nothing.onnx", tmp_path / "b.safetensors", READING)


def with_numbers_in(location: str, path: Path) -> Path:
    """A graph of a scale that lies in another file."""
    import onnx

    write_graph(
        path,
        STACKED.replace("p = Tanh(mean)", "t = Tanh(mean) p = Mul(t, scale)").replace(
            "channels = {1}", "channels = {1}, float[1] scale = {0.5}"
        ),
    )
    model = onnx.load(path)
    scale = next(each for each in model.graph.initializer if each.name == "scale")
    scale.ClearField("float_data")
    scale.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "4"}.items():
        scale.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_numbers_beside_the_file_come_into_the_bundle(tmp_path: Path) -> None:
    file = with_numbers_in("scale.data", tmp_path / "g.onnx")
    with pytest.raises(BundleError, match=r"numbers in 'scale.data', and there is no such file"):
        import_model(file, tmp_path / "b.safetensors", READING)
    (tmp_path / "scale.data").write_bytes(np.array([0.25], dtype="<f4").tobytes())
    bundle = import_model(file, tmp_path / "b.safetensors", READING).bundle
    (tmp_path / "scale.data").unlink()
    images = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 64, 64), dtype=np.uint8)
    found = DasnetPredictor(bundle).distances(images, np.ones((1, 2, 64, 64), dtype=np.bool_))
    assert found.max() == pytest.approx(0.5, abs=1e-4)
    assert set(bundle.provenance["sha256"]) == {"g.onnx", "scale.data"}


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "deeper/secret", "link"])
def test_numbers_elsewhere_are_not_read(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"\0\0\0\0")
    (folder / "link").symlink_to(tmp_path / "secret")
    file = with_numbers_in(location, folder / "g.onnx")
    with pytest.raises(BundleError, match=f"numbers in '{location}', outside of its folder"):
        import_model(file, tmp_path / "b.safetensors", READING)


def test_a_bundle_whose_graph_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    bundle = import_model(write_graph(tmp_path / "g.onnx", STACKED), path, READING).bundle
    state = load_file(path)
    state["graph"][-1] ^= 1
    save_file(state, path, metadata={METADATA_KEY: bundle.to_json()})
    with pytest.raises(BundleError, match="but the header describes"):
        load_bundle(path)


def test_a_bundle_cannot_make_the_runtime_read_other_files(tmp_path: Path) -> None:
    """Its header may be of anybody's making, digest and all."""
    bundle = import_model(write_graph(tmp_path / "g.onnx", STACKED), tmp_path / "b.safetensors", READING).bundle
    content = with_numbers_in("scale.data", tmp_path / "evil.onnx").read_bytes()
    network = replace(network_of(bundle), graph_bytes=len(content), graph_sha256=hashlib.sha256(content).hexdigest())
    evil = replace(
        bundle, architecture=network, state={"graph": torch.frombuffer(bytearray(content), dtype=torch.uint8)}
    )
    with pytest.raises(BundleError, match="numbers in other files"):
        DasnetPredictor(evil)


def test_an_answer_outside_its_range_ends_the_window_and_not_silently(tmp_path: Path) -> None:
    """What it is tried with cannot show everything."""
    text = STACKED.replace(
        "p = Tanh(mean)", "t = Tanh(mean) big = Greater(mean, nine) f = Cast<to=1>(big) p = Add(t, f)"
    )
    text = text.replace("channels = {1}", "channels = {1}, float[1] nine = {9}")
    bundle = import_model(write_graph(tmp_path / "g.onnx", text), tmp_path / "b.safetensors", READING).bundle
    images = np.zeros((1, 2, 3, 64, 64), dtype=np.uint8)
    images[0, 1] = 255
    with pytest.raises(ArithmeticError, match="reaches from 2 to 2"):
        DasnetPredictor(bundle).distances(images, np.ones((1, 2, 64, 64), dtype=np.bool_))


def test_it_computes_in_its_own_arithmetic(tmp_path: Path) -> None:
    bundle = import_model(write_graph(tmp_path / "g.onnx", STACKED), tmp_path / "b.safetensors", READING).bundle
    with pytest.raises(PredictorError, match="not in bfloat16"):
        DasnetPredictor(bundle, precision="bfloat16")
    with pytest.warns(UserWarning, match=r"no part in what ONNX Runtime"):
        DasnetPredictor(bundle, compile=True)


def test_probabilities_that_are_said_to_be_logits_are_doubted(tmp_path: Path) -> None:
    file = write_graph(tmp_path / "g.onnx", STACKED)
    done = import_model(file, tmp_path / "b.safetensors", replace(READING, output="logits"))
    assert len(done.warnings) == 1 and "--output probability" in done.warnings[0]


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = import_model(write_graph(tmp_path / "g.onnx", STACKED), tmp_path / "b.safetensors", READING).bundle
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    for use in (lambda: DasnetPredictor(bundle), lambda: import_model(tmp_path / "g.onnx", tmp_path / "c", READING)):
        with pytest.raises(BundleError, match=r"not installed here: onnxruntime; .*dasnet-region\[onnx\]"):
            use()

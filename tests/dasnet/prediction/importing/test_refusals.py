"""What an import refuses or doubts beside graphs of other shapes: odd types, words, places and expected answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from dasnet.errors import BundleError
from dasnet.networks.imported.graph import LARGEST
from dasnet.prediction.importing.description import Reading
from dasnet.prediction.importing.expected import read_expected
from dasnet.prediction.importing.onnx_bundle import import_model
from tests.dasnet.graphs import STACKED, write_graph
from tests.dasnet.prediction.importing.test_graphs import EMBED, READING, SIAMESE

DISTANCE = replace(READING, output="distance", middle=1.0)
_BOTH = "(float[N,6,H,W] x) => (float[N,2,H,W] p) <float[1] none = {0.0}> { a, b, c = Split<axis=1, num_outputs=3>(x) "
_ONE = "(float[N,3,H,W] x) => (float[N,1,H,W] p) <int64[1] channels = {1}> { p = ReduceMean<keepdims=1>(x, channels) }"


@pytest.mark.parametrize(
    ("text", "reading", "message"),
    [
        (STACKED, replace(READING, changed_channel=0), "one value a position.*--changed-channel 0"),
        (STACKED, replace(READING, offset=3.0), "1 px apart.*--offset 3 does not fit, an output of every pixel has"),
        (STACKED, replace(DISTANCE, threshold=-1.0), "threshold -1 lies outside of what distance can be"),
        (_BOTH + "d = Abs(a) p = Div(d, none) }", replace(READING, output="logits"), "infinite at once"),
        (_ONE, EMBED, "no embedding of every position"),
    ],
)
def test_words_that_do_not_fit_the_graph_are_refused(text: str, reading: Reading, message: str, tmp_path: Path) -> None:
    file = write_graph(tmp_path / "g.onnx", text)
    with pytest.raises(BundleError, match=message):
        import_model(file, tmp_path / "b.safetensors", reading)
    assert [path.name for path in tmp_path.iterdir()] == ["g.onnx"]


@pytest.mark.parametrize(("word", "value"), [("middle", np.inf), ("offset", np.nan)])
def test_words_that_are_no_numbers_are_refused(word: str, value: float) -> None:
    with pytest.raises(BundleError, match="finite"):
        replace(DISTANCE, **{word: value})  # type: ignore[arg-type]  # both are numbers


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_type_that_onnx_does_not_know_is_named(side: str, tmp_path: Path) -> None:
    import onnx

    file = write_graph(tmp_path / "g.onnx", STACKED)
    model = onnx.load(file)
    getattr(model.graph, side)[0].type.tensor_type.elem_type = 999
    file.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"onnx does not know \(999\)"):
        import_model(file, tmp_path / "b.safetensors", READING)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.onnx").open("wb") as file:
        file.truncate(LARGEST + 1)  # which takes no place
    with pytest.raises(BundleError, match="has 2,147,483,648 bytes, a graph of ONNX in one piece at most"):
        import_model(tmp_path / "huge.onnx", tmp_path / "b.safetensors", READING)


@pytest.mark.parametrize(
    ("text", "reading", "said"),
    [
        (STACKED.replace("Abs(difference)", "Abs(before)"), READING, "another second date does not change"),
        (STACKED.replace("Abs(difference)", "Sub(after, after)"), READING, "another image of either date"),
        (
            "(float[N,3,H,W] a, float[N,3,H,W] b) => (float[N,1,H,W] p) <int64[1] channels = {1}> { s = Abs(b) "
            "m = ReduceMean<keepdims=1>(s, channels) p = Tanh(m) }",
            SIAMESE,
            "another first date does not change output 'p'",
        ),
        ("(float[N,3,H,W] a) => (float[N,3,H,W] p) { p = Sub(a, a) }", EMBED, "another image of either date"),
    ],
)
def test_a_graph_that_takes_no_notice_of_a_date_is_doubted(
    text: str, reading: Reading, said: str, tmp_path: Path
) -> None:
    done = import_model(write_graph(tmp_path / "g.onnx", text), tmp_path / "b.safetensors", reading)
    assert len(done.warnings) == 1 and said in done.warnings[0]


def test_a_place_that_cannot_be_a_file_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").touch()
    for place, message in (("folder.safetensors", "is a folder"), ("file/deeper/b.safetensors", "file is no folder")):
        with pytest.raises(BundleError, match=message):
            import_model(tmp_path / "no graph", tmp_path / place, READING)


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _changed(content: bytes) -> bytes:
    return content[:200] + bytes([content[200] ^ 255]) + content[201:]


@pytest.mark.parametrize("spoil", [_cut, _changed, lambda content: b""])
def test_a_damaged_file_of_answers_is_refused(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", x=np.ones((1, 6, 64, 64)), p=np.ones((1, 1, 64, 64)))
    (tmp_path / "spoilt.npz").write_bytes(spoil((tmp_path / "whole.npz").read_bytes()))
    with pytest.raises(BundleError, match=r"spoilt.npz is no .npz file of arrays"):
        read_expected(tmp_path / "spoilt.npz")


def test_one_array_is_no_file_of_answers(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3))
    with pytest.raises(BundleError, match=r"x\.npy holds one array without a name"):
        read_expected(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("x", "p", "message"),
    [
        (np.array(["a"]), np.ones(3), "where .* needs real numbers"),
        (np.ones((1, 6, 64, 64)) * 1j, np.ones(3), "complex128 where .* needs real numbers"),
        (np.ones((0, 6, 64, 64)), np.ones((0, 1, 64, 64)), r"x \(0, 6, 64, 64\) float64, p .* one or more"),
        (np.ones((1, 6, 64, 64)), np.full((1, 1, 64, 64), np.nan), "NaN or infinite values in p"),
    ],
)
def test_answers_that_nothing_can_be_held_against_are_refused(x: Any, p: Any, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", x=x, p=p)
    file = write_graph(tmp_path / "g.onnx", STACKED)
    with pytest.raises(BundleError, match=message):
        import_model(file, tmp_path / "b.safetensors", READING, expected=tmp_path / "e.npz")


def test_a_missing_program_is_said_in_few_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError, match=r"nothing.pt2: no such file"):
        import_model(tmp_path / "nothing.pt2", tmp_path / "b.safetensors", READING, trust=True)
    (tmp_path / "text.pt2").write_text("no program")
    with pytest.raises(BundleError, match=r"text.pt2 is no program that torch"):
        import_model(tmp_path / "text.pt2", tmp_path / "b.safetensors", READING, trust=True)
    assert "Traceback" not in capfd.readouterr().err

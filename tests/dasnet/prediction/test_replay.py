"""Calls that are recorded and replayed: by a recorder that runs them again on a CPU, by CUDA graphs on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dasnet.prediction.bundle import build_model
from dasnet.prediction.network import InferenceNetwork, prepare
from dasnet.prediction.predictor import DasnetPredictor
from dasnet.prediction.replay import Replayed, replayed_for
from tests.dasnet.prediction.blocks import BUNDLE, SIZE, scene, whole

SHAPE = (2, 3, SIZE, SIZE)


class Recorder:
    """What a CUDA graph does: it reads and writes the same places each time, and Python is not asked again."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, run: Callable[[], None]) -> Callable[[], object]:
        run()
        function = run.__closure__
        assert function is not None
        recorded: Any = next(cell.cell_contents for cell in function if isinstance(cell.cell_contents, Replayed))
        places = recorded._outputs

        def replay() -> None:
            self.replays += 1
            run()
            for place, tensor in zip(places, recorded._outputs, strict=True):
                place.copy_(tensor)
            recorded._outputs = places

        return replay


@pytest.fixture(scope="module")
def network() -> InferenceNetwork:
    return prepare(build_model(BUNDLE), in_bands=3, device="cpu", precision="float32")


def test_replayed_calls_answer_as_the_network_does_and_keep_earlier_answers(network: InferenceNetwork) -> None:
    recorder = Recorder()
    replayed = replayed_for(network, SHAPE, record=recorder)
    assert recorder.replays == 3, "two dates and one comparison were tried"
    images = [torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)]
    with torch.inference_mode():
        dates = [replayed.embed(image) for image in images]
        for one, other in ((0, 1), (1, 2), (0, 2)):
            expected = network.compare(network.embed(images[one]), network.embed(images[other]))
            assert torch.equal(replayed.compare(dates[one], dates[other]), expected)
        assert recorder.replays == 9
        alone = replayed.embed(images[0][:1])  # another shape goes its own way
        assert recorder.replays == 9
    torch.testing.assert_close(alone, network.embed(images[0][:1]))


def test_what_cannot_be_recorded_or_answers_otherwise_stays_as_it_is(network: InferenceNetwork) -> None:
    def fails(run: Callable[[], None]) -> Callable[[], object]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with pytest.warns(UserWarning, match="not replayed: operation not permitted when stream is capturing$"):
        assert replayed_for(network, SHAPE, record=fails) is network
    with pytest.warns(UserWarning, match="answers otherwise"):
        # a recording that does not look at its inputs again
        assert replayed_for(network, SHAPE, record=lambda run: (run(), lambda: None)[1]) is network
    odd = replace(network, embed=lambda images: (network.embed(images), "a word"))
    with pytest.warns(UserWarning, match="only tensors are replayed, not str"):
        assert replayed_for(odd, SHAPE, record=Recorder()) is odd


def test_tuples_and_dictionaries_of_tensors_are_replayed() -> None:
    def compute(pair: tuple[Tensor, Tensor], more: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sum": pair[0] + pair[1], "more": more["x"] * 2}

    example = ((torch.zeros(2), torch.zeros(2)), {"x": torch.zeros(3)})
    replayed = Replayed(compute, *example, record=Recorder())
    first = replayed((torch.ones(2), torch.ones(2)), {"x": torch.ones(3)})
    replayed((torch.ones(2), 5 * torch.ones(2)), {"x": 7 * torch.ones(3)})
    assert first["sum"].tolist() == [2, 2] and first["more"].tolist() == [2, 2, 2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_that_replays_gives_the_same_bytes(precision: Any) -> None:
    images, valid = scene(3)
    expected = whole(DasnetPredictor(BUNDLE, device="cuda", precision=precision, batch=4), images, valid)
    predictor = DasnetPredictor(BUNDLE, device="cuda", precision=precision, batch=4, window=SIZE, replay=True)
    assert isinstance(predictor._network.embed, Replayed)
    for _ in range(2):
        np.testing.assert_array_equal(whole(predictor, images, valid).probability, expected.probability)

"""The promise of equal bits, whatever the cut, the batch and the threads; and what may change them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dasnet.networks.architectures import Architecture
from dasnet.networks.decoder import upsample
from dasnet.prediction import predictor as inference
from dasnet.prediction.bundle import build_model, random_bundle
from dasnet.prediction.folding import fold_normalisation
from dasnet.prediction.predictor import DasnetPredictor
from tests.dasnet.prediction.blocks import BUNDLE, LATTICE, by_blocks, made, scene, whole
from tiling.grid import Box


@pytest.mark.parametrize("decoder", ["none", "half", "full"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_bytes_whichever_way_the_grid_is_cut(precision: Any, decoder: Any) -> None:
    images, valid = scene(3)
    predictor = DasnetPredictor(made("mobilenet_v3", decoder=decoder), precision=precision)
    expected = whole(predictor, images, valid)
    for size in (150, 64, 37):
        mosaic, predictions = by_blocks(predictor, images, valid, size=size)
        np.testing.assert_array_equal(mosaic, expected.probability)
        np.testing.assert_array_equal(sum(p.disagreement for p in predictions), expected.disagreement)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_the_same_bytes_for_any_block_and_any_nodata(data: st.DataObject) -> None:
    images, _ = scene()
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    blots = random.random((2, 5, 5)) < data.draw(st.sampled_from([0.1, 0.5, 0.95]))
    valid = np.logical_not(np.kron(blots, np.ones((30, 34), dtype=bool)))
    y0, x0 = data.draw(st.integers(0, 149)), data.draw(st.integers(0, 169))
    box = Box(
        y0=y0, x0=x0, y1=data.draw(st.integers(y0 + 1, min(y0 + 40, 150))), x1=data.draw(st.integers(x0 + 1, 170))
    )
    halo = LATTICE.read_box(box)
    inner = box.relative_to(halo)
    predictor = DasnetPredictor(BUNDLE)
    part = predictor.predict(
        images[:, :, halo.rows, halo.cols],
        valid[:, halo.rows, halo.cols],
        origins=LATTICE.origins_touching(box) - (halo.y0, halo.x0),
        taper=LATTICE.taper,
        crop=(inner.rows, inner.cols),
    )
    expected = whole(predictor, images, valid).probability[:, box.rows, box.cols]
    np.testing.assert_array_equal(part.probability, expected)
    np.testing.assert_array_equal(part.probability[0] == 255, ~(valid[0] & valid[1])[box.rows, box.cols])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("backbone", ["mobilenet_v3", "vgg16", "resnet50"])
def test_bits_do_not_depend_on_the_batch_asked_for_on_a_cpu(backbone: Any, precision: Any) -> None:
    bundle = made(backbone)
    images, valid = scene()
    images, valid = images[:, :, :64, :104], np.ones((2, 64, 104), dtype=bool)
    origins = np.array([[0, 0], [0, 24], [0, 40]])
    alone, several, too_many = (
        DasnetPredictor(bundle, precision=precision, batch=batch).predict(
            images, valid, origins=origins, taper=LATTICE.taper, crop=(slice(0, 64), slice(0, 104))
        )
        for batch in (1, 2, 5)
    )
    np.testing.assert_array_equal(alone.probability, several.probability)
    np.testing.assert_array_equal(alone.probability, too_many.probability)
    assert alone.windows_computed == 3


def test_threads_share_a_predictor() -> None:
    images, valid = scene()
    predictor = DasnetPredictor(BUNDLE)
    expected = whole(predictor, images, valid).probability
    with ThreadPoolExecutor(3) as pool:
        for got in pool.map(lambda _: whole(predictor, images, valid).probability, range(6)):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_share_the_windows_of_a_block_and_give_the_bytes_of_one(lanes: int) -> None:
    images, valid = scene()
    expected = whole(DasnetPredictor(BUNDLE), images, valid)
    predictor = DasnetPredictor(BUNDLE)
    predictor.spread(lanes)
    with ThreadPoolExecutor(2) as blocks:
        for prediction in blocks.map(lambda _: whole(predictor, images, valid), range(4)):
            np.testing.assert_array_equal(prediction.probability, expected.probability)
            np.testing.assert_array_equal(prediction.disagreement, expected.disagreement)
            assert prediction.windows_computed == expected.windows_computed > 2 * lanes


def test_an_error_in_a_window_ends_the_block_and_leaves_the_lanes_free(monkeypatch: pytest.MonkeyPatch) -> None:
    images, valid = scene()
    predictor = DasnetPredictor(BUNDLE)
    predictor.spread(2)
    expected = whole(predictor, images, valid).probability
    with monkeypatch.context() as broken:
        broken.setattr(inference, "upsample", lambda *given, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            whole(predictor, images, valid)
    np.testing.assert_array_equal(whole(predictor, images, valid).probability, expected)


def test_the_description_says_what_the_bits_depend_on() -> None:
    described = DasnetPredictor(BUNDLE, precision="float32").describe()
    assert described == {
        "device": f"CPU {torch.backends.cpu.get_cpu_capability()}",
        "precision": "float32",
        "batch": 1,
        "compile": False,
        "threads": 1,
        "torch": torch.__version__,
    }


def test_without_a_compiler_the_network_runs_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(function: object, options: object) -> Callable[[Tensor], Tensor]:
        def fails(images: Tensor) -> Tensor:
            raise RuntimeError("No working C++ compiler found")

        return fails

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.warns(UserWarning, match=r"uncompiled: No working C\+\+ compiler"):
        predictor = DasnetPredictor(BUNDLE, compile=True)
    assert predictor.describe()["compile"] is False
    images, valid = scene()
    np.testing.assert_array_equal(
        whole(predictor, images, valid).probability, whole(DasnetPredictor(BUNDLE), images, valid).probability
    )


@pytest.mark.parametrize("backbone", ["mobilenet_v3", "resnet50"])
def test_folding_the_normalisation_changes_no_result(backbone: Any) -> None:
    bundle = random_bundle(Architecture(backbone=backbone))
    plain, folded = build_model(bundle), build_model(bundle)
    fold_normalisation(folded, in_bands=3)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(folded.embed_fused(x), plain.embed_fused(x), atol=1e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_gives_what_the_cpu_gives_and_the_same_bytes_for_every_cut(precision: Any) -> None:
    images, valid = scene(3)
    cpu = whole(DasnetPredictor(BUNDLE, precision="float32"), images, valid).probability
    predictor = DasnetPredictor(BUNDLE, device="cuda", precision=precision, batch=4)
    gpu = whole(predictor, images, valid).probability
    np.testing.assert_array_equal(gpu == 255, cpu == 255)
    difference = np.abs(gpu.astype(int) - cpu)
    if precision == "float32":
        assert difference.max() <= 1
    else:
        assert np.mean(difference <= 6) > 0.99, "bfloat16 rounds single pixels further off, on a CPU too"
        assert difference.max() <= 16, "12 on an H200"
    for size in (64, 37):
        np.testing.assert_array_equal(by_blocks(predictor, images, valid, size=size)[0], gpu)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_one_thread_computes_on_a_gpu_whichever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def noted(*given: Any, **options: Any) -> Tensor:
        threads.add(threading.get_ident())
        return upsample(*given, **options)

    monkeypatch.setattr(inference, "upsample", noted)
    images, valid = scene()
    predictor = DasnetPredictor(BUNDLE, device="cuda", batch=4)
    with ThreadPoolExecutor(3) as pool:
        one, *others = (p.probability for p in pool.map(lambda _: whole(predictor, images, valid), range(6)))
    assert len(threads) == 1
    for other in others:
        np.testing.assert_array_equal(other, one)


@pytest.mark.slow
def test_a_compiled_network_gives_nearly_the_same() -> None:
    images, valid = scene()
    predictor = DasnetPredictor(BUNDLE, precision="float32", compile=True)
    assert predictor.describe()["compile"] is True
    eager = whole(DasnetPredictor(BUNDLE, precision="float32"), images, valid).probability
    mosaic, _ = by_blocks(predictor, images, valid, size=64)
    assert np.abs(mosaic.astype(int) - eager).max() <= 1
    with ThreadPoolExecutor(3) as pool:
        for got in pool.map(lambda _: whole(predictor, images, valid).probability, range(6)):
            np.testing.assert_array_equal(got, mosaic)

"""The predictor against a plain model and a blend by hand, and its promise of equal bits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dasnet.bundle import Bundle, build_model, random_bundle
from dasnet.calibration import Calibration
from dasnet.errors import PredictorError
from dasnet.inference import BlockPrediction, DasnetPredictor
from dasnet.inference_network import fold_normalisation
from dasnet.model import Architecture, upsample
from tiling.grid import BlockGrid, Box, WindowLattice

SIZE = 64
LATTICE = WindowLattice(height=150, width=170, window=SIZE, overlap=24)


def made(backbone: Any, *, dtype: str = "uint8", head_channels: int = 64) -> Bundle:
    """Random weights, calibrated so that the small distances they give spread over the probabilities."""
    bundle = random_bundle(Architecture(backbone=backbone, head_channels=head_channels), seed=5, dtype=dtype)
    return replace(bundle, window=SIZE, calibration=Calibration(slope=12.0, intercept=-2.0))


BUNDLE = made("mobilenet_v3")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def scene(dates: int = 2, dtype: str = "uint8", seed: int = 0) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Smooth noise with a blot of change, and an irregular part without data at each date."""
    random = np.random.default_rng(seed)
    coarse = random.random((dates, 3, 22, 20))
    fine = F.interpolate(torch.from_numpy(coarse), size=(LATTICE.height, LATTICE.width), mode="bicubic").numpy()
    values = np.clip(fine + 0.05 * random.standard_normal(fine.shape), 0, 1)
    images = (values * {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]).astype(dtype)
    valid = np.ones((dates, LATTICE.height, LATTICE.width), dtype=bool)
    valid[0, :30, :90] = valid[1, 100:, 120:] = valid[-1, 60:80, 60:75] = False
    if dtype == "float32":
        images[~np.repeat(valid[:, None], 3, axis=1)] = np.nan
    return images, valid


def whole(predictor: DasnetPredictor, images: NDArray[Any], valid: NDArray[np.bool_]) -> BlockPrediction:
    return by_blocks(predictor, images, valid, size=1000)[1][0]


def by_blocks(
    predictor: DasnetPredictor, images: NDArray[Any], valid: NDArray[np.bool_], *, size: int
) -> tuple[NDArray[np.uint8], list[BlockPrediction]]:
    """As the workers do: every block with its halo, its windows, its part of the mosaic."""
    mosaic = np.zeros((len(images) - 1, LATTICE.height, LATTICE.width), dtype=np.uint8)
    predictions = []
    for block in BlockGrid(height=LATTICE.height, width=LATTICE.width, size=size):
        halo = LATTICE.read_box(block.box)
        inner = block.box.relative_to(halo)
        prediction = predictor.predict(
            images[:, :, halo.rows, halo.cols],
            valid[:, halo.rows, halo.cols],
            origins=LATTICE.origins_touching(block.box) - (halo.y0, halo.x0),
            taper=LATTICE.taper,
            crop=(inner.rows, inner.cols),
        )
        mosaic[:, block.box.rows, block.box.cols] = prediction.probability
        predictions.append(prediction)
    return mosaic, predictions


def by_hand(bundle: Bundle, images: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """(T − 1, H, W) probabilities × 254 before rounding, NaN where nodata; and the histogram of disagreement."""
    model = build_model(bundle)
    mean = np.array([band.mean for band in bundle.bands], dtype=np.float32)[:, None, None]
    std = np.array([band.std for band in bundle.bands], dtype=np.float32)[:, None, None]
    dates = [np.where(v, (image.astype(np.float32) - mean) / std, 0) for image, v in zip(images, valid, strict=True)]
    pairs = [a & b for a, b in pairwise(valid)]
    shape = (len(pairs), LATTICE.height, LATTICE.width)
    samples: list[list[tuple[NDArray[Any], NDArray[Any]]]] = [[] for _ in pairs]
    for y, x in LATTICE.origins_touching(Box(y0=0, y1=shape[1], x0=0, x1=shape[2])):
        here = (slice(y, y + SIZE), slice(x, x + SIZE))
        if not any(pair[here].any() for pair in pairs):
            continue
        weight = np.outer(LATTICE.taper, LATTICE.taper).astype(np.float64)
        for pair in range(len(pairs)):
            before, after = (torch.from_numpy(dates[t][:, *here].astype(np.float32))[None] for t in (pair, pair + 1))
            with torch.inference_mode():
                distance = upsample(model(before, after).fused, height=SIZE, width=SIZE)[0].double().numpy()
            p = np.full(shape[1:], np.nan)
            w = np.zeros(shape[1:])
            p[here] = 1 / (1 + np.exp(-(bundle.calibration.slope * distance + bundle.calibration.intercept)))
            w[here] = weight
            samples[pair].append((p, w))
    result, histogram = np.full(shape, np.nan), np.zeros(256, dtype=np.int64)
    for pair, both in enumerate(pairs):
        p, w = (np.stack(arrays) for arrays in zip(*samples[pair], strict=True))
        total = w.sum(axis=0).clip(1e-30)
        mean_p = (np.nan_to_num(p) * w).sum(axis=0) / total
        spread = np.sqrt((w * np.nan_to_num(p - mean_p) ** 2).sum(axis=0) / total)
        result[pair][both] = mean_p[both] * 254
        several = both & ((w > 0).sum(axis=0) > 1)
        histogram += np.bincount(np.round(spread[several] * 510).astype(int), minlength=256)
    return result, histogram


@pytest.mark.parametrize(
    ("dates", "dtype", "backbone"),
    [(2, "uint8", "mobilenet_v3"), (3, "uint16", "mobilenet_v3"), (2, "float32", "vgg16")],
)
def test_a_block_is_the_plain_model_blended_by_hand(dates: int, dtype: str, backbone: Any) -> None:
    bundle = made(backbone, dtype=dtype, head_channels=16)
    images, valid = scene(dates, dtype)
    got = whole(DasnetPredictor(bundle, precision="float32"), images, valid)
    expected, histogram = by_hand(bundle, images, valid)

    assert got.probability.dtype == np.uint8
    np.testing.assert_array_equal(got.probability == 255, np.isnan(expected))
    known = ~np.isnan(expected)
    assert expected[known].std() > 5, "a flat result would prove nothing"
    assert np.abs(got.probability[known] - expected[known]).max() < 0.52
    assert got.disagreement.sum() == histogram.sum()
    bins = np.arange(256)
    assert got.disagreement @ bins / histogram.sum() == pytest.approx(histogram @ bins / histogram.sum(), abs=0.01)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_bytes_whichever_way_the_grid_is_cut(precision: Any) -> None:
    images, valid = scene(3)
    predictor = DasnetPredictor(BUNDLE, precision=precision)
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
def test_bits_do_not_depend_on_the_batch_on_a_cpu(backbone: Any, precision: Any) -> None:
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


def test_windows_without_a_pixel_valid_in_both_dates_are_skipped() -> None:
    images, valid = scene()
    predictor = DasnetPredictor(BUNDLE)
    valid[0, :, :90], valid[1, :, 90:] = False, False
    nothing = whole(predictor, images, valid)
    assert (nothing.windows_computed, nothing.windows_skipped) == (0, len(LATTICE))
    assert (nothing.probability == 255).all()
    assert nothing.probability.shape == (1, 150, 170)
    assert nothing.disagreement.sum() == 0

    valid[0, 0, 3] = True  # one pixel, under the first window alone
    valid[1, 0, 3] = True
    single = whole(predictor, images, valid)
    assert (single.windows_computed, single.windows_skipped) == (1, len(LATTICE) - 1)
    assert np.argwhere(single.probability != 255).tolist() == [[0, 0, 3]]
    assert single.disagreement.sum() == 0, "one window has nothing to disagree with"


def test_what_lies_under_nodata_changes_nothing() -> None:
    images, valid = scene()
    predictor = DasnetPredictor(BUNDLE)
    expected = whole(predictor, images, valid).probability
    images[~np.repeat(valid[:, None], 3, axis=1)] = 213
    np.testing.assert_array_equal(whole(predictor, images, valid).probability, expected)


def test_a_date_of_a_series_is_embedded_once() -> None:
    predictor = DasnetPredictor(BUNDLE)
    embed, images_seen = predictor._network.embed, 0

    def counting(images: Tensor) -> Tensor:
        nonlocal images_seen
        images_seen += len(images)
        return embed(images)

    replace_embed(predictor, counting)
    images, valid = scene(4)
    assert whole(predictor, images, np.ones_like(valid)).windows_computed * 4 == images_seen


def test_out_of_memory_halves_the_batch_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    images, valid = scene()
    expected = whole(DasnetPredictor(BUNDLE), images, valid).probability
    predictor = DasnetPredictor(BUNDLE, batch=5)
    embed = predictor._network.embed

    def small_memory(images: Tensor) -> Tensor:
        if len(images) > 2 * 2:
            raise torch.OutOfMemoryError("scripted")
        return embed(images)

    replace_embed(predictor, small_memory)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(whole(predictor, images, valid).probability, expected)
    assert predictor.describe()["batch"] == 2
    assert "2 windows at a time" in caplog.text

    def no_memory(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("scripted")

    replace_embed(predictor, no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        whole(predictor, images, valid)


def replace_embed(predictor: DasnetPredictor, embed: Callable[[Tensor], Tensor]) -> None:
    object.__setattr__(predictor._network, "embed", embed)


def test_an_infinite_pixel_fails_the_block_and_does_not_become_a_probability() -> None:
    bundle = made("mobilenet_v3", dtype="float32")
    images, valid = scene(dtype="float32")
    images[0, 0, 90, 30] = np.inf
    with pytest.raises(ArithmeticError, match="finite"):
        whole(DasnetPredictor(bundle), images, valid)


def test_read_only_and_strided_blocks_are_taken_as_they_are() -> None:
    images, valid = scene()
    predictor = DasnetPredictor(BUNDLE)
    expected = whole(predictor, images, valid).probability
    images = np.asfortranarray(images)
    images.setflags(write=False)
    valid.setflags(write=False)
    np.testing.assert_array_equal(whole(predictor, images, valid).probability, expected)


def test_what_does_not_fit_is_refused() -> None:
    images, valid = scene()
    predictor = DasnetPredictor(BUNDLE)
    with pytest.raises(PredictorError, match="3 bands of uint8, not 2 of uint8"):
        whole(predictor, images[:, :2], valid)
    with pytest.raises(PredictorError, match="3 bands of uint8, not 3 of uint16"):
        whole(predictor, images.astype(np.uint16), valid)
    with pytest.raises(PredictorError, match="two dates"):
        whole(predictor, images[:1], valid[:1])
    with pytest.raises(PredictorError, match="'float16'"):
        DasnetPredictor(BUNDLE, precision="float16")  # type: ignore[arg-type]
    with pytest.raises(PredictorError, match="'tpu'"):
        DasnetPredictor(BUNDLE, device="tpu")
    with pytest.raises(PredictorError, match="sees"):
        DasnetPredictor(BUNDLE, device="cuda:97")
    with pytest.raises(PredictorError, match="batch of 0"):
        DasnetPredictor(BUNDLE, batch=0)


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
    fold_normalisation(folded)
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
    assert np.abs(gpu.astype(int) - cpu).max() <= (1 if precision == "float32" else 6)
    for size in (64, 37):
        np.testing.assert_array_equal(by_blocks(predictor, images, valid, size=size)[0], gpu)


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

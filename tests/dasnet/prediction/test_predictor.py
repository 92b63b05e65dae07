"""The predictor against a plain model and a blend by hand; what it skips, survives and refuses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dasnet.errors import PredictorError
from dasnet.networks.decoder import upsample
from dasnet.prediction.bundle import Bundle, build_model
from dasnet.prediction.network import InferenceNetwork
from dasnet.prediction.predictor import DasnetPredictor
from tests.dasnet.prediction.blocks import BUNDLE, LATTICE, SIZE, made, scene, whole
from tiling.conventions import NODATA, changed_level
from tiling.grid import Box


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
                distance = upsample(model(before, after).fused, height=SIZE, width=SIZE, stride=8)[0].double().numpy()
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


def test_as_many_windows_as_fit_are_taken_and_that_is_settled_before_the_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried = []

    def small_memory(images: Tensor) -> Tensor:
        tried.append(len(images))
        if len(images) > 5:
            raise torch.OutOfMemoryError("scripted")
        return images

    network = InferenceNetwork(
        embed=small_memory, compare=lambda a, b: a - b, device=torch.device("cpu"), dtype=torch.float32
    )
    assert network.largest_batch(16, bands=3, side=32, dates=2, pairs=1, spare=0) == 4
    assert tried == [16, 8, 4, 4]
    tried.clear()
    assert network.largest_batch(4, bands=3, side=32, dates=5, pairs=4, spare=0) == 4 and tried == [4] * 5
    assert network.largest_batch(5, bands=3, side=32, dates=2, pairs=1, spare=0) == 5
    predictor = DasnetPredictor(BUNDLE)
    with caplog.at_level(logging.WARNING):
        assert predictor._fitting(network, None, side=32, dates=2, pairs=1, spare=0) == 4
    assert "4 windows at a time fit onto cpu, not 16" in caplog.text
    with pytest.raises(PredictorError, match="a batch of 8 windows does not fit onto cpu, 4 do"):
        predictor._fitting(network, 8, side=32, dates=2, pairs=1, spare=0)

    def no_memory(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("scripted")

    with pytest.raises(torch.OutOfMemoryError):
        replace(network, embed=no_memory).largest_batch(16, bands=3, side=32, dates=2, pairs=1, spare=0)
    with pytest.raises(PredictorError, match="not one window of 32 px of 2 dates fits onto cpu"):
        predictor._fitting(replace(network, embed=no_memory), None, side=32, dates=2, pairs=1, spare=0)
    # in the middle of a run the batch stays, whatever happens: equal descriptions promise equal bytes
    images, valid = scene()
    replace_embed(predictor, no_memory)
    with pytest.raises(torch.OutOfMemoryError, match=r"scripted; a batch of 1 windows .* a smaller --batch"):
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


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.61803, 0.9])
def test_a_window_by_itself_is_judged_as_the_mosaic_that_is_delivered(threshold: float) -> None:
    bundle = replace(BUNDLE, threshold=threshold)
    predictor = DasnetPredictor(bundle, precision="float32")
    images, valid = (array[..., 40 : 40 + SIZE, 90 : 90 + SIZE] for array in scene())
    mosaic = predictor.predict(
        images,
        valid,
        origins=np.zeros((1, 2), dtype=np.int64),
        taper=np.ones(SIZE, dtype=np.float32),
        crop=(slice(0, SIZE), slice(0, SIZE)),
    ).probability[0]
    alone = predictor.distances(images[None], valid[None])[0, 0] >= bundle.cut
    both = mosaic != NODATA
    assert np.array_equal(alone[both], mosaic[both] >= changed_level(threshold))
    assert both.any()

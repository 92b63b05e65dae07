"""Windows blended on the device: against a loop over windows in float64, whatever the cut, and by how many calls."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.dispatch import counted_calls
from dasnet.errors import PredictorError
from dasnet.prediction import blending, device_block
from dasnet.prediction.block_prediction import BlockPrediction
from dasnet.prediction.bundle import Bundle
from dasnet.prediction.predictor import DasnetPredictor
from tests.dasnet.prediction.blocks import BUNDLE, LATTICE, SIZE, elementwise, made, scene
from tiling.chosen import ChosenCells
from tiling.grid import BlockGrid, Box, WindowLattice

DTYPES = ("uint8", "uint16", "float32")
BUNDLES = {dtype: made("mobilenet_v3", dtype=dtype, head_channels=16) for dtype in DTYPES}


@cache
def made_ready(dtype: str) -> DasnetPredictor:
    return elementwise(BUNDLES[dtype])


def ready(case: Case, *, batch: int = 1) -> DasnetPredictor:
    """The predictor of the case's data type; it is made once."""
    predictor = copy(made_ready(case.bundle.dtype))
    predictor._batch = batch
    return predictor


@dataclass(frozen=True, kw_only=True)
class Case:
    """A series with nodata on a lattice of small windows, the pairs that are compared and the cells that are chosen."""

    bundle: Bundle
    lattice: WindowLattice
    images: NDArray[Any]
    valid: NDArray[np.bool_]
    pairs: list[tuple[int, int]]
    chosen: ChosenCells

    @property
    def grid(self) -> Box:
        return Box(y0=0, y1=self.lattice.height, x0=0, x1=self.lattice.width)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Grids from less than one window to several, any overlap; nodata beyond the grid, as readers fill it."""
    window = draw(st.sampled_from([8, 16]))
    lattice = WindowLattice(
        height=draw(st.integers(1, 70)),
        width=draw(st.integers(1, 70)),
        window=window,
        overlap=draw(st.one_of(st.just(window // 4), st.integers(0, window - 2))),
    )
    dtype = draw(st.sampled_from(DTYPES))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    dates = draw(st.integers(2, 3))
    box = lattice.read_box(Box(y0=0, y1=lattice.height, x0=0, x1=lattice.width))
    scale = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    images = (random.random((dates, 3, box.height, box.width)) * scale).astype(dtype)
    valid = random.random((dates, box.height, box.width)) < draw(st.sampled_from([0.02, 0.7, 1.0]))
    if draw(st.booleans()):
        valid[:, : box.height // 2, : box.width // 2] = False
    valid[:, lattice.height :] = valid[..., lattice.width :] = False
    cells = BlockGrid(height=lattice.height, width=lattice.width, size=9)
    part = random.random(len(cells)) < draw(st.sampled_from([0.3, 1.0]))
    return Case(
        bundle=BUNDLES[dtype],
        lattice=lattice,
        images=images,
        valid=valid,
        pairs=draw(st.sampled_from([[(0, 1)], [(0, dates - 1), (0, 1)]])),
        chosen=ChosenCells.of(cells, part),
    )


def blended(predictor: DasnetPredictor, case: Case, box: Box) -> BlockPrediction:
    """A block of the case, with its halo and its chosen windows, as a worker computes it."""
    halo = case.lattice.read_box(box)
    inner = box.relative_to(halo)
    origins, wanted = case.chosen.part_of(case.lattice, box, within=halo)
    return predictor.predict(
        case.images[:, :, halo.rows, halo.cols],
        case.valid[:, halo.rows, halo.cols],
        origins=origins - (halo.y0, halo.x0),
        taper=case.lattice.taper,
        crop=(inner.rows, inner.cols),
        pairs=case.pairs,
        wanted=wanted,
    )


def by_loop(case: Case) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability × 254 of each pair, NaN = nodata, and standard deviation × 510, NaN = no two windows: (P, H, W).

    Window by window in float64, with every window computed and what is not wanted taken out at the end.
    """
    side, (height, width) = case.lattice.window, case.valid.shape[1:]
    mean, std = (np.array([getattr(band, name) for band in case.bundle.bands]) for name in ("mean", "std"))
    ramp = np.linspace(0.2, 1.0, side)
    weight = np.outer(case.lattice.taper, case.lattice.taper).astype(np.float64)
    inputs = (case.images.astype(np.float64) - mean[:, None, None]) / std[:, None, None]
    inputs = np.where(case.valid[:, None], inputs, 0)
    origins = case.lattice.origins_touching(case.grid)
    _, wanted = case.chosen.part_of(case.lattice, case.grid, within=case.lattice.read_box(case.grid))
    levels, deviations = [], []
    for one, other in case.pairs:
        total, squares, weights, count = np.zeros((4, height, width))
        for y, x in origins:
            here = (slice(y, y + side), slice(x, x + side))
            distance = np.abs(inputs[one][:, *here] - inputs[other][:, *here]).mean(axis=0) * np.outer(ramp, ramp)
            calibration = case.bundle.calibration
            probability = 1 / (1 + np.exp(-(calibration.slope * distance + calibration.intercept)))
            total[here] += weight * probability
            squares[here] += weight * probability**2
            weights[here] += weight
            count[here] += 1
        there = case.valid[one] & case.valid[other] & wanted
        p = total / weights
        deviation = np.sqrt(np.maximum(squares / weights - p * p, 0))
        levels.append(np.where(there, p * 254, np.nan))
        deviations.append(np.where(there & (count > 1), deviation * 510, np.nan))
    part = (slice(None), case.grid.rows, case.grid.cols)
    return np.stack(levels)[part], np.stack(deviations)[part]


@settings(max_examples=60)
@given(case=cases(), batch=st.sampled_from([1, 3, 16]))
def test_a_block_is_the_loop_over_its_windows(case: Case, batch: int) -> None:
    got = blended(ready(case, batch=batch), case, case.grid)
    levels, deviations = by_loop(case)
    known = ~np.isnan(levels)
    np.testing.assert_array_equal(got.probability != 255, known)
    assert np.abs(got.probability[known] - levels[known]).max(initial=0) < 0.502
    several = ~np.isnan(deviations)
    assert got.disagreement.sum() == several.sum()
    # a deviation is the root of a difference of nearly equal numbers: small ones may lie in the next bin
    expected = np.sort(deviations[several])
    assert np.abs(np.repeat(np.arange(256), got.disagreement) - expected).max(initial=0) < 1.0


@settings(max_examples=40)
@given(case=cases(), data=st.data())
def test_any_cut_batch_lane_band_and_strip_gives_the_same_bytes(case: Case, data: st.DataObject) -> None:
    expected = blended(ready(case), case, case.grid)
    cut = BlockGrid(height=case.lattice.height, width=case.lattice.width, size=data.draw(st.integers(5, 80)))
    predictor = ready(case, batch=data.draw(st.integers(1, 20)))
    if data.draw(st.booleans()):
        predictor.spread(2)
    mosaic, disagreement = np.zeros_like(expected.probability), np.zeros_like(expected.disagreement)
    with pytest.MonkeyPatch.context() as small:
        if data.draw(st.booleans()):  # bands of one row of windows or of a few, strips of a few rows
            small.setattr(blending, "_HELD_BYTES", 0)
            small.setitem(device_block._STRIP_PIXELS, "cpu", data.draw(st.integers(1, 500)))
        for block in cut:
            part = blended(predictor, case, block.box)
            mosaic[:, block.box.rows, block.box.cols] = part.probability
            disagreement += part.disagreement
    np.testing.assert_array_equal(mosaic, expected.probability)
    np.testing.assert_array_equal(disagreement, expected.disagreement)


def test_bands_are_held_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = []
    begin = blending.Blend.begin

    def noted(blend: blending.Blend, band: blending.Band) -> None:
        begin(blend, band)
        tables.append(blend._table.numel() * 4)

    monkeypatch.setattr(blending.Blend, "begin", noted)
    monkeypatch.setattr(blending, "_HELD_BYTES", 1 << 16)
    lattice = WindowLattice(height=96, width=96, window=16, overlap=14)
    images = np.random.default_rng(3).integers(0, 255, (2, 3, 96, 96), dtype=np.uint8)
    elementwise().predict(
        images,
        np.ones((2, 96, 96), dtype=bool),
        origins=lattice.origins_touching(Box(y0=0, y1=96, x0=0, x1=96)),
        taper=lattice.taper,
        crop=(slice(0, 96), slice(0, 96)),
    )
    assert len(tables) > 10 and sum(tables) == len(lattice) * 16 * 16 * 4
    assert max(tables) <= max(8 * 96 * 96, 1 << 16)


@pytest.mark.parametrize("nodata", [False, True])
def test_the_calls_do_not_grow_with_the_windows_of_a_batch(nodata: bool) -> None:
    images, valid = scene()
    if not nodata:
        valid = np.ones_like(valid)
    counts = {}
    for batch, width in ((2, 2 * SIZE - 24), (3, 3 * SIZE - 48), (16, LATTICE.width)):
        height = SIZE if batch < 16 else LATTICE.height
        lattice = replace(LATTICE, height=height, width=width)
        box = Box(y0=0, y1=height, x0=0, x1=width)
        predictor = DasnetPredictor(BUNDLE, precision="float32")
        predictor._batch = batch
        with counted_calls(predictor) as counted:
            prediction = predictor.predict(
                images[:, :, :height, :width],
                valid[:, :height, :width],
                origins=lattice.origins_touching(box),
                taper=lattice.taper,
                crop=(box.rows, box.cols),
            )
        assert prediction.windows_computed == batch
        assert counted.network > 100
        counts[batch] = counted.outside
    # two windows side by side have one row of windows: its pixels have two windows at most, those of a table four
    assert counts[2] == counts[3]
    assert counts[16].total() <= 12 * 16
    one_batch = counts[16].total()
    predictor._batch = 4
    with counted_calls(predictor) as counted:
        predictor.predict(
            images, valid, origins=lattice.origins_touching(box), taper=LATTICE.taper, crop=(box.rows, box.cols)
        )
    a_batch, rest = divmod(counted.outside.total() - one_batch, 3)
    assert rest == 0 and 0 < a_batch < 40, "what a further batch costs, whatever its windows"


def test_a_window_that_the_network_cannot_answer_fails_the_block_of_its_pixels_alone() -> None:
    bundle = BUNDLES["float32"]
    lattice = replace(LATTICE, height=SIZE, width=104)
    images = np.random.default_rng(1).random((2, 3, SIZE, 104), dtype=np.float32)
    valid = np.ones((2, SIZE, 104), dtype=bool)
    images[0, 0, 10, 80] = np.nan
    arguments: dict[str, Any] = {
        "origins": lattice.origins_touching(Box(y0=0, y1=SIZE, x0=0, x1=104)),
        "taper": lattice.taper,
    }
    for lanes in (1, 2):
        predictor = elementwise(bundle, batch=2)
        predictor.spread(lanes)
        with pytest.raises(ArithmeticError, match="finite"):
            predictor.predict(images, valid, crop=(slice(0, SIZE), slice(0, 104)), **arguments)
        beside = predictor.predict(images, valid, crop=(slice(0, SIZE), slice(0, 80)), **arguments)
        assert (beside.probability != 255).all()
        with pytest.raises(ArithmeticError, match="finite"):  # a valid pixel that no window covers
            predictor.predict(
                np.zeros_like(images),
                valid,
                crop=(slice(0, SIZE), slice(0, 104)),
                origins=arguments["origins"][:1],
                taper=lattice.taper,
            )


def test_images_stay_as_they_were_given() -> None:
    bundle = BUNDLES["float32"]
    images = np.random.default_rng(1).random((2, 3, SIZE, SIZE), dtype=np.float32)
    given_images, valid = images.copy(), np.ones((2, SIZE, SIZE), dtype=bool)
    predictor = DasnetPredictor(bundle)
    predictor.distances(images[None], valid[None])
    predictor.predict(
        images,
        valid,
        origins=np.zeros((1, 2), dtype=np.int64),
        taper=np.ones(SIZE, dtype=np.float32),
        crop=(slice(0, SIZE), slice(0, SIZE)),
    )
    np.testing.assert_array_equal(images, given_images)
    with pytest.raises(PredictorError, match="stand at 1 place"):
        predictor.predict(
            images,
            valid,
            origins=np.zeros((2, 2), dtype=np.int64),
            taper=np.ones(SIZE, dtype=np.float32),
            crop=(slice(0, SIZE), slice(0, SIZE)),
        )
    assert torch.is_inference_mode_enabled() is False

"""Chains of blocks, as a worker computes them, against the whole mosaic at once: same bytes, no window twice."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dasnet.errors import PredictorError
from dasnet.prediction.left_windows import LeftWindows, among
from dasnet.prediction.predictor import DasnetPredictor
from tests.dasnet.prediction.blocks import BUNDLE, elementwise
from tiling.carrying import chain_of, chain_order, windows_of
from tiling.chosen import ChosenCells
from tiling.grid import BlockGrid, WindowLattice
from tiling.worker import SeriesInference, SeriesTask

PAIRS = ((0, 1, "0-1"), (1, 2, "1-2"))


class Series:
    """Dates in memory; pixels of pairs are written into one array."""

    def __init__(self, images: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        self.images, self.valid = images, valid
        self.probability = {name: np.full(valid.shape[1:], 77, dtype=np.uint8) for *_, name in PAIRS}
        self.broken: set[int] = set()

    def write_date(self, name: str, image: NDArray[Any], valid: NDArray[np.bool_], *, rows: slice, cols: slice) -> None:
        raise AssertionError("nothing is ingested here")

    def read_dates(self, names: Any, *, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        dates = [int(name) for name in names]
        lower, right = rows.stop - self.valid.shape[1], cols.stop - self.valid.shape[2]
        pad = ((0, max(lower, 0)), (0, max(right, 0)))
        images, valid = self.images[dates][:, :, rows, cols], self.valid[dates][:, rows, cols]
        return np.pad(images, ((0, 0), (0, 0), *pad)), np.pad(valid, ((0, 0), *pad))

    def write_pair(self, name: str, probability: NDArray[np.uint8], *, rows: slice, cols: slice) -> str:
        if rows.start * self.valid.shape[2] + cols.start in self.broken:
            raise OSError("no room")
        self.probability[name][rows, cols] = probability
        return "0" * 64


def scene(height: int, width: int, *, nodata: float = 0.2, seed: int = 0) -> Series:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (3, 3, height, width), dtype=np.uint8)
    blots = random.random((3, -(-height // 24), -(-width // 24))) < nodata
    return Series(images, ~np.kron(blots, np.ones((24, 24), dtype=bool))[:, :height, :width])


def chained(chains: Sequence[Sequence[int]]) -> list[list[SeriesTask]]:
    return [
        [
            SeriesTask(
                block=block,
                dates=("0", "1", "2"),
                pairs=PAIRS,
                chain=str(number),
                following=tuple(chain[place + 1 :]),
            )
            for place, block in enumerate(chain)
        ]
        for number, chain in enumerate(chains)
    ]


def alone(blocks: BlockGrid) -> list[list[SeriesTask]]:
    return [
        [replace(task, chain=None) for task in chain] for chain in chained([[index] for index in range(len(blocks))])
    ]


def squares(blocks: BlockGrid, side: int) -> list[list[int]]:
    """Squares of `side` × `side` blocks, row by row."""
    by_square: dict[tuple[int, int], list[int]] = {}
    for block in blocks:
        by_square.setdefault((block.row // side, block.col // side), []).append(block.index)
    return list(by_square.values())


def compute(
    predictor: DasnetPredictor,
    series: Series,
    blocks: BlockGrid,
    lattice: WindowLattice,
    chains: Sequence[Sequence[SeriesTask]],
    *,
    lanes: int = 1,
    chosen: ChosenCells | None = None,
) -> tuple[dict[str, bytes], int, NDArray[np.int64]]:
    """Bytes by pair, windows that went through the network, and how far windows disagree."""
    tool = SeriesInference(
        predictor=predictor, source=series, sink=series, blocks=blocks, lattice=lattice, lanes=lanes, chosen=chosen
    )

    def chain(tasks: Sequence[SeriesTask]) -> list[Any]:
        return [tool(task) for task in tasks]

    with ThreadPoolExecutor(lanes) as threads:
        facts = [fact for chain_facts in threads.map(chain, chains) for fact in chain_facts]
    assert tool._luggage is not None and not len(tool._luggage), "a chain that has ended carries nothing"
    disagreement = np.zeros(256, dtype=np.int64)
    for fact in facts:
        for bin, count in fact["disagreement"].items():
            disagreement[int(bin)] += count
    pixels = {name: pixels.tobytes() for name, pixels in series.probability.items()}
    return pixels, sum(fact["windows"] for fact in facts), disagreement


def expected_windows(chains: Sequence[Sequence[int]], series: Series, blocks: BlockGrid, lattice: WindowLattice) -> int:
    """Windows with a valid pixel that touch a chain, summed over the chains, window by window."""
    either = (series.valid[:-1] & series.valid[1:]).any(axis=0)
    side = lattice.window
    return sum(
        bool(either[y : y + side, x : x + side].any())
        for chain in chains
        for y, x in {tuple(c) for i in chain for c in lattice.origins_touching(blocks[i].box).tolist()}
    )


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_chains_of_any_size_give_the_same_bytes_and_compute_no_window_twice(side: int, lanes: int) -> None:
    blocks = BlockGrid(height=250, width=256, size=32)
    lattice = WindowLattice(height=250, width=256, window=16, overlap=4)
    series, predictor = scene(250, 256), elementwise(batch=4)
    alone_bytes, alone_windows, alone_disagreement = compute(predictor, series, blocks, lattice, alone(blocks))
    chains = squares(blocks, side)
    series = scene(250, 256)
    pixels, windows, disagreement = compute(predictor, series, blocks, lattice, chained(chains), lanes=lanes)
    assert pixels == alone_bytes
    np.testing.assert_array_equal(disagreement, alone_disagreement)
    assert windows == expected_windows(chains, series, blocks, lattice)
    assert (windows == alone_windows) is (side == 1)


def test_a_network_s_windows_are_carried_to_the_same_bits() -> None:
    blocks = BlockGrid(height=150, width=170, size=48)
    lattice = WindowLattice(height=150, width=170, window=64, overlap=24)
    predictor = DasnetPredictor(BUNDLE)
    predictor.spread(2)
    expected, _, _ = compute(predictor, scene(150, 170), blocks, lattice, alone(blocks))
    order = list(chain_order(blocks))
    series = scene(150, 170)
    pixels, windows, _ = compute(predictor, series, blocks, lattice, chained([order]))
    assert pixels == expected
    assert windows == expected_windows([order], series, blocks, lattice) <= len(lattice)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_cut_of_any_grid_in_any_order_gives_the_same_bytes(data: st.DataObject) -> None:
    draw = data.draw
    height, width = draw(st.integers(1, 130)), draw(st.integers(1, 130))
    blocks = BlockGrid(height=height, width=width, size=draw(st.integers(16, 60)))
    window = draw(st.integers(4, 40))
    lattice = WindowLattice(height=height, width=width, window=window, overlap=draw(st.integers(0, window // 2)))
    nodata, seed = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0])), draw(st.integers(0, 99))
    chosen = None
    if draw(st.booleans()):
        cells = BlockGrid(height=height, width=width, size=draw(st.integers(8, 40)))
        chosen = ChosenCells.of(cells, np.random.default_rng(seed).random(len(cells)) < 0.4)
    predictor = elementwise(batch=draw(st.integers(1, 5)))
    order = draw(st.permutations(range(len(blocks))))
    cuts = sorted(draw(st.sets(st.integers(1, len(blocks)), max_size=3)) | {len(blocks)})
    chains = [order[first:last] for first, last in zip([0, *cuts], cuts, strict=False)]
    outcomes = [
        compute(
            predictor, scene(height, width, nodata=nodata, seed=seed), blocks, lattice, tasks, lanes=2, chosen=chosen
        )
        for tasks in (alone(blocks), chained(chains))
    ]
    assert outcomes[0][0] == outcomes[1][0]
    np.testing.assert_array_equal(outcomes[0][2], outcomes[1][2])
    if chosen is None:
        series = scene(height, width, nodata=nodata, seed=seed)
        padded = np.pad(series.valid, ((0, 0), (0, window), (0, window)))
        series.valid = padded
        assert outcomes[1][1] == expected_windows(chains, series, blocks, lattice)


def test_a_block_that_fails_in_the_middle_costs_the_others_nothing_but_windows() -> None:
    blocks = BlockGrid(height=64, width=64, size=16)
    lattice = WindowLattice(height=64, width=64, window=16, overlap=4)
    predictor, order = elementwise(), list(chain_order(blocks))
    expected, _, _ = compute(predictor, scene(64, 64), blocks, lattice, alone(blocks))
    series = scene(64, 64)
    tool = SeriesInference(predictor=predictor, source=series, sink=series, blocks=blocks, lattice=lattice, lanes=1)
    failing = blocks[order[5]]
    series.broken = {failing.box.y0 * 64 + failing.box.x0}
    (tasks,) = chained([order])
    for task in tasks:
        if task.block == failing.index:
            with pytest.raises(OSError, match="no room"):
                tool(task)
        else:
            tool(task)
    assert all((pixels[failing.box.rows, failing.box.cols] == 77).all() for pixels in series.probability.values())
    series.broken = set()
    tool(replace(tasks[5], chain=None, following=()))  # as it is tried again
    assert {name: pixels.tobytes() for name, pixels in series.probability.items()} == expected


def test_what_is_carried_is_a_row_and_a_column_of_windows() -> None:
    """Flat memory: it does not grow with the blocks that are done."""
    blocks = BlockGrid(height=256, width=256, size=32)
    lattice = WindowLattice(height=256, width=256, window=16, overlap=4)
    series, predictor, most = scene(256, 256, nodata=0.0), elementwise(), 0
    tool = SeriesInference(predictor=predictor, source=series, sink=series, blocks=blocks, lattice=lattice, lanes=1)
    for task in chained([list(range(len(blocks)))])[0]:
        tool(task)
        assert tool._luggage is not None
        left = tool._luggage.of("0")
        if left is not None:
            most = max(most, len(left.corners))
            assert among(left.corners, windows_of(task.following, blocks=blocks, lattice=lattice)).all()
            # a window that waits has been computed for a block that is done
            done = windows_of(range(task.block + 1), blocks=blocks, lattice=lattice)
            assert among(left.corners, done).all()
    row, column = len(lattice.starts_x), len(lattice.starts_y) // 8 + 2
    assert row <= most <= 2 * (row + column)
    assert chain_of(len(blocks) - 1, blocks) == 3


def test_windows_of_other_pairs_or_another_size_are_refused() -> None:
    left = LeftWindows(corners=np.zeros((1, 2), dtype=np.int64), probability=torch.zeros((2, 1, 16, 16)))
    images, valid = np.zeros((2, 3, 16, 16), dtype=np.uint8), np.ones((2, 16, 16), dtype=bool)
    with pytest.raises(PredictorError, match="windows of 2 pairs and 16 px to a block of 1 pairs and windows of 16 px"):
        elementwise().predict(
            images,
            valid,
            origins=np.zeros((1, 2), dtype=np.int64),
            taper=np.ones(16, dtype=np.float32),
            crop=(slice(0, 16), slice(0, 16)),
            before=left,
            leave=np.zeros((0, 2), dtype=np.int64),
        )

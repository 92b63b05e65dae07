"""The order of blocks in chains, and what is carried between them."""

from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiling.carrying import CHAIN_SIDE, Luggage, chain_of, chain_order, place_in_chain, windows_of
from tiling.grid import BlockGrid, Box, WindowLattice

GRIDS = st.builds(BlockGrid, height=st.integers(1, 400), width=st.integers(1, 400), size=st.integers(16, 64))


@given(GRIDS)
def test_every_block_is_in_one_square_and_squares_follow_each_other(blocks: BlockGrid) -> None:
    order = list(chain_order(blocks))
    assert sorted(order) == list(range(len(blocks)))
    chains = [(number, list(inside)) for number, inside in groupby(order, key=lambda block: chain_of(block, blocks))]
    assert [number for number, _ in chains] == list(range(len(chains)))
    for _, inside in chains:
        places = [place_in_chain(block, blocks) for block in inside]
        assert places == sorted(set(places)) and max(places) < CHAIN_SIDE**2
        rows, cols = {block // blocks.cols for block in inside}, {block % blocks.cols for block in inside}
        assert len(inside) == len(rows) * len(cols)
        assert max(rows) - min(rows) < CHAIN_SIDE and max(cols) - min(cols) < CHAIN_SIDE


def test_halves_and_quarters_of_the_order_are_halves_and_quarters_of_the_square() -> None:
    blocks = BlockGrid(height=40, width=40, size=10)
    order = np.array([divmod(block, 4) for block in chain_order(blocks)])
    for part in (8, 4):
        for first in range(0, 16, part):
            spans = np.ptp(order[first : first + part], axis=0) + 1
            assert spans.prod() == part


@given(GRIDS, st.data())
def test_windows_of_blocks_are_those_that_share_a_pixel_with_one(blocks: BlockGrid, data: st.DataObject) -> None:
    window = data.draw(st.integers(8, 60))
    lattice = WindowLattice(
        height=blocks.height, width=blocks.width, window=window, overlap=data.draw(st.integers(0, window - 1))
    )
    if len(lattice) > 2000:
        return
    some = data.draw(st.lists(st.integers(0, len(blocks) - 1), max_size=4))
    expected = [
        (y, x)
        for y in lattice.starts_y.tolist()
        for x in lattice.starts_x.tolist()
        if any(Box(y0=y, y1=y + window, x0=x, x1=x + window).intersects(blocks[index].box) for index in some)
    ]
    assert [tuple(corner) for corner in windows_of(some, blocks=blocks, lattice=lattice).tolist()] == expected


def test_luggage_is_replaced_given_back_and_bounded() -> None:
    luggage = Luggage(2)
    for chain in "abc":
        luggage.leave(chain, chain.upper())
    assert [luggage.of(chain) for chain in "abc"] == [None, "B", "C"]
    luggage.leave("b", "again")
    luggage.leave("d", "D")
    assert [luggage.of(chain) for chain in "bcd"] == ["again", None, "D"]
    luggage.leave("b", None)
    assert luggage.of("b") is None and len(luggage) == 1

"""The plan's numbers against a plain count, and its refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.grid import BlockGrid, Box, WindowLattice
from tiling.plan import Plan, RefusedPlanError


def plan(*, height: int, width: int, block: int, window: int, overlap: int) -> Plan:
    return Plan(
        blocks=BlockGrid(height=height, width=width, size=block),
        lattice=WindowLattice(height=height, width=width, window=window, overlap=overlap),
        dates=2,
        bands=3,
        itemsize=1,
        workers=2,
        lanes=1,
    )


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    block=st.integers(16, 300),
    window=st.integers(8, 128),
    share=st.floats(0, 0.9),
)
def test_windows_are_counted_as_chains_of_blocks_compute_them(
    height: int, width: int, block: int, window: int, share: float
) -> None:
    made = plan(height=height, width=width, block=block, window=window, overlap=int(window * share))

    def squares(side: int) -> list[Box]:
        step = side * block
        return [
            Box(y0=y, y1=min(y + step, height), x0=x, x1=min(x + step, width))
            for y in range(0, height, step)
            for x in range(0, width, step)
        ]

    # the largest squares of which each of two workers has one
    side = next((side for side in (4, 2) if len(squares(side)) >= 2), 1)
    assert made.windows_computed == sum(len(made.lattice.origins_touching(square)) for square in squares(side))


def test_default_settings_compute_few_windows_twice() -> None:
    for height, width in ((8192, 8192), (15_354, 32_507), (100_000, 100_000)):
        made = plan(height=height, width=width, block=2048, window=256, overlap=64)
        assert len(made.lattice) < made.windows_computed <= 1.07 * len(made.lattice)


def test_bytes_of_a_hand_worked_case() -> None:
    made = plan(height=1000, width=2000, block=512, window=256, overlap=64)
    assert made.bytes_in == 1000 * 2000 * 2 * (3 + 1)
    assert made.bytes_out == 1000 * 2000


def test_too_little_disk_is_refused_with_both_numbers() -> None:
    made = plan(height=10_000, width=10_000, block=2048, window=256, overlap=64)
    with pytest.raises(RefusedPlanError, match=r"1\.1 GB.*only 0\.5 GB"):
        made.require(free_disk=500_000_000, memory=None)


def test_too_little_memory_is_refused_with_both_numbers() -> None:
    made = plan(height=10_000, width=10_000, block=2048, window=256, overlap=64)
    with pytest.raises(RefusedPlanError, match=r"2 workers with blocks of 2048 px need .* only 1\.0 GB"):
        made.require(free_disk=None, memory=10**9)
    made.require(free_disk=10**12, memory=10**12)

"""Splits that do not leak: zones cover a scene once, windows stay inside their zone, shares come out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.conventions import SPLITS
from tiling.grid import Box
from tiling.zones import Zone, cells, columns, dealt, whole, windows_of

sides = st.integers(1, 700)


def covered(height: int, width: int, zones: list[Zone]) -> np.ndarray:
    count = np.zeros((height, width), dtype=int)
    for zone in zones:
        count[zone.box.rows, zone.box.cols] += 1
    return count


@given(height=sides, width=sides, window=st.integers(1, 200), data=st.data())
def test_windows_cover_their_zone_and_show_nothing_else(
    height: int, width: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(max(window // 3, 1), window))
    zone = Zone(box=Box(y0=5, y1=5 + height, x0=7, x1=7 + width), split="train")
    seen = np.zeros((height, width), dtype=bool)
    for found in windows_of(zone, window=window, stride=stride):
        assert found.window.height == found.window.width == window
        inside = found.inside
        assert (inside.y0, inside.x0) == (found.window.y0, found.window.x0)
        assert zone.box.y0 <= inside.y0 < inside.y1 <= zone.box.y1
        assert zone.box.x0 <= inside.x0 < inside.x1 <= zone.box.x1
        seen[inside.relative_to(zone.box).rows, inside.relative_to(zone.box).cols] = True
    assert seen.all()


@given(height=st.integers(1, 900), width=st.integers(30, 900), first=st.floats(0.2, 0.5), second=st.floats(0.6, 0.9))
def test_columns_cover_every_pixel_once_from_left_to_right(
    height: int, width: int, first: float, second: float
) -> None:
    zones = columns(height, width, first=first, second=second)
    assert (covered(height, width, zones) == 1).all()
    assert [zone.split for zone in zones] == list(SPLITS)
    assert zones[0].box.x1 == round(first * width) and zones[1].box.x1 == round(second * width)


@given(height=st.integers(200, 1500), width=st.integers(200, 1500), seed=st.integers(0, 99))
def test_cells_cover_every_pixel_once_and_every_split_has_one(height: int, width: int, seed: int) -> None:
    zones = cells(height, width, side=100, seed=seed)
    assert (covered(height, width, zones) == 1).all()
    assert {zone.split for zone in zones} == set(SPLITS)
    assert zones == cells(height, width, side=100, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_eight_to_one_to_one(seed: int) -> None:
    zones = cells(15_354, 32_507, side=1024, seed=seed)
    area = {split: sum(zone.box.area for zone in zones if zone.split == split) for split in SPLITS}
    total = sum(area.values())
    assert total == 15_354 * 32_507
    assert area["train"] / total == pytest.approx(0.8, abs=0.01)
    assert area["val"] / total == pytest.approx(0.1, abs=0.01)


def test_another_seed_deals_otherwise() -> None:
    assert dealt([1.0] * 50, seed=0) != dealt([1.0] * 50, seed=1)


def test_a_split_without_a_share_gets_nothing() -> None:
    assert set(dealt([1.0] * 9, seed=0, shares={"train": 2, "val": 1, "test": 0})) == {"train", "val"}


def test_bcdd_is_7620_windows_as_in_table_one() -> None:
    (zone,) = whole(15_354, 32_507, "train")
    assert len(list(windows_of(zone, window=256, stride=256))) == 7_620  # × 256² = the 499,384,320 px of Table I


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dealt([1.0, 1.0], seed=0), "2 pictures cannot be split"),
        (lambda: columns(10, 10, first=0.7, second=0.6), "0 < first < second < 1"),
        (lambda: columns(10, 3, first=0.1, second=0.2), "3 columns cannot be split"),
        (lambda: Zone(box=Box(y0=0, y1=1, x0=0, x1=1), split="holdout"), "'holdout'"),
        (lambda: list(windows_of(whole(9, 9, "val")[0], window=8, stride=9)), "stride of 9"),
    ],
)
def test_what_cannot_be_split_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]

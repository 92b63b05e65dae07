"""Quicklooks: what a person sees must be what is in the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from storage.pages import quicklook
from storage.pages.colours import colours, stretch
from storage.pages.quicklook import LONG_SIDE, LookPart, look_at, make_quicklooks, write_quicklook
from storage.products.plates import Plates
from tests.storage.products.memory import MemoryRun

MISSING = (214, 214, 214)


def wide_run() -> MemoryRun:
    """300 × 2500 px, so that a quicklook pixel stands for 3 × 3; one changed pixel, one corner without data."""
    height, width = 300, 2500
    rng = np.random.default_rng(0)
    before = rng.integers(40, 120, (3, height, width), dtype=np.uint8)
    images = np.stack([before, before + np.uint8(60)])
    valid = np.ones((2, height, width), dtype=bool)
    valid[0, :30, :30] = False
    probability = np.full((height, width), 5, dtype=np.uint8)
    probability[:30, :30] = 255
    probability[151, 1001] = 250
    return MemoryRun(probability, images=images, valid=valid, block=512)


def test_a_single_changed_pixel_stays_visible() -> None:
    looks = make_quicklooks(wide_run(), threshold=0.5)
    assert looks.before.shape == (100, 834, 3)
    assert max(looks.before.shape) <= LONG_SIDE
    assert np.argwhere(looks.changed).tolist() == [[151 // 3, 1001 // 3]]


def test_nodata_is_grey_in_the_date_that_lacks_it_and_in_the_probability() -> None:
    looks = make_quicklooks(wide_run(), threshold=0.5)
    assert (looks.before[:10, :10] == MISSING).all()
    assert not (looks.after[:10, :10] == MISSING).all(axis=-1).any()
    assert (looks.probability[:10, :10] == MISSING).all()
    assert not (looks.probability[20:] == MISSING).all(axis=-1).any()


def test_both_dates_are_stretched_alike() -> None:
    """The later date is brighter by a constant; a stretch of its own for each date would hide that."""
    looks = make_quicklooks(wide_run(), threshold=0.5)
    assert looks.after[20:].mean() > looks.before[20:].mean() + 60


def test_blocks_leave_no_seam() -> None:
    run = wide_run()
    whole = make_quicklooks(MemoryRun(run.probability, images=run.images, valid=run.valid, block=8192), threshold=0.5)
    cut = make_quicklooks(run, threshold=0.5)
    assert np.array_equal(whole.before, cut.before)
    assert np.array_equal(whole.probability, cut.probability)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), plate=st.integers(1, 24), long_side=st.integers(1, 48))
def test_a_look_is_that_of_the_whole_picture_whatever_the_plates(
    height: int, width: int, plate: int, long_side: int
) -> None:
    rng = np.random.default_rng([height, width])
    images = rng.integers(0, 255, (2, 3, height, width), dtype=np.uint8)
    valid = rng.random((2, height, width)) < 0.8
    probability = rng.choice(np.array([0, 3, 127, 254, 255], np.uint8), (height, width))
    run = MemoryRun(probability, images=images, valid=valid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quicklook, "LONG_SIDE", long_side)
        looks = make_quicklooks(run, threshold=0.5, plate=plate)
    step = max(1, -(-max(height, width) // long_side))
    rows, cols = range(0, height, step), range(0, width, step)
    cells = [[probability[y : y + step, x : x + step] for x in cols] for y in rows]
    best = [[max((int(v) for v in cell.ravel() if v != 255), default=255) for cell in row] for row in cells]
    assert np.array_equal(looks.probability, colours(np.array(best, dtype=np.uint8)))
    assert np.array_equal(looks.changed, np.isin(best, (127, 254)))
    expected = stretch(images[..., ::step, ::step].astype(np.float32), valid[..., ::step, ::step])
    assert np.array_equal(np.stack([looks.before, looks.after]), expected)


def test_a_part_comes_back_from_its_bytes_and_nothing_else_does() -> None:
    run = wide_run()
    (plate,) = Plates(height=300, width=2500, size=2500)
    part = look_at(run, plate, run.probability)
    again = LookPart.from_bytes(part.to_bytes())
    assert all(np.array_equal(getattr(part, name), getattr(again, name)) for name in ("images", "valid", "probability"))
    for wrong in (b"", part.to_bytes()[:-40], b"PK\x03\x04 no zip"):
        with pytest.raises(ValueError, match="no part of a quicklook"):
            LookPart.from_bytes(wrong)


def test_the_scale_rises_in_lightness() -> None:
    scale = colours(np.arange(255, dtype=np.uint8)[None])[0].astype(float)
    lightness = scale @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -1).all()
    assert lightness[-1] > lightness[0] + 200


def test_one_band_is_grey_and_named_bands_are_sorted_into_colours() -> None:
    run = wide_run()
    assert run.images is not None
    grey = MemoryRun(run.probability, images=run.images[:, :1], valid=run.valid, bands=("pan",), block=512)
    looks = make_quicklooks(grey, threshold=0.5)
    assert np.ptp(looks.before[20:].astype(int), axis=-1).max() == 0
    turned = MemoryRun(run.probability, images=run.images[:, ::-1], valid=run.valid, bands=("blue", "green", "red"))
    assert np.array_equal(make_quicklooks(turned, threshold=0.5).before, make_quicklooks(run, threshold=0.5).before)


def test_the_picture_shows_three_panels(tmp_path: Path) -> None:
    looks = make_quicklooks(wide_run(), threshold=0.5)
    write_quicklook(tmp_path / "q.png", looks, captions=("before " * 200, "after", "probability"))
    with Image.open(tmp_path / "q.png") as picture:
        assert picture.format == "PNG"
        assert picture.width >= 3 * 834

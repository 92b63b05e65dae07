"""Quicklooks: what a person sees must be what is in the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from storage.pages.colours import colours
from storage.pages.quicklook import LONG_SIDE, make_quicklooks, write_quicklook
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

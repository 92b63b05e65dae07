"""Sharpness by split and date: of synthetic images that are blurred by a known amount, and of a real dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from storage.datasets.cut import SampleFacts, look_at
from storage.datasets.sharpness import Sharpness, sharpness_of, sharpness_table, sharpness_warnings, split_sharpness
from storage.datasets.store import Samples

EVERYWHERE = np.ones((96, 96), dtype=bool)


def scene(seed: int, *, blur: float = 0.8, gain: float = 1.0) -> NDArray[np.float32]:
    """(3, 96, 96) of soft noise about 100."""
    noise = np.random.default_rng(seed).normal(size=(3, 96, 96))
    soft = np.stack([ndimage.gaussian_filter(band, blur, mode="wrap") for band in noise])
    return (100 + 40 * gain * soft / soft.std()).astype(np.float32)


def measured(image: NDArray[Any], valid: NDArray[np.bool_] = EVERYWHERE) -> Sharpness:
    found = sharpness_of(image, valid)
    assert found is not None
    return found


def test_the_gradient_of_a_plane_is_its_slope() -> None:
    y, x = np.mgrid[:40, :50]
    plane = np.stack([3.0 * y + 2.0 * x, 5.0 * y, 1.0 * x]).astype(np.float32)  # mean (8 y + 3 x) / 3
    gradient, deviation = measured(plane, np.ones((40, 50), dtype=bool))
    assert gradient == pytest.approx(11 / 3, rel=1e-5)
    assert deviation == pytest.approx(plane.mean(axis=0).std(), rel=1e-5)


def test_values_of_eight_and_sixteen_bits_do_not_wrap_around() -> None:
    stripes = np.zeros((3, 32, 32), dtype=np.uint8)
    stripes[..., ::2] = 250
    assert measured(stripes, np.ones((32, 32), dtype=bool))[0] == 250
    assert measured(stripes.astype(np.uint16) * 257, np.ones((32, 32), dtype=bool))[0] == 250 * 257


def test_invalid_pixels_have_no_part() -> None:
    image, valid = scene(1), EVERYWHERE.copy()
    valid[:, :40] = False
    valid[10:14, 60:70] = False
    spoiled = np.where(valid, image, 0)
    assert measured(spoiled, valid) == measured(np.where(valid, image, 7000), valid)
    inside = image[:, 20:, 40:]
    assert measured(spoiled, valid)[0] == pytest.approx(measured(inside, np.ones(inside.shape[1:], bool))[0], rel=0.05)
    assert sharpness_of(image, np.zeros_like(valid)) is None
    assert sharpness_of(np.full((3, 8, 8), 9, np.uint8), np.ones((8, 8), bool)) is None


def test_it_depends_neither_on_units_nor_on_contrast() -> None:
    relative = [gradient / deviation for gradient, deviation in map(measured, (scene(2), scene(2) * 37 - 500))]
    assert relative[0] == pytest.approx(relative[1], rel=1e-3)


def splits(**images: list[tuple[NDArray[Any], NDArray[Any]]]) -> Any:
    return split_sharpness(
        {
            name: [tuple(sharpness_of(date, EVERYWHERE) for date in pair) for pair in pairs]
            for name, pairs in images.items()
        }
    )


def test_a_blurred_training_part_is_warned_of() -> None:
    train = [(scene(n, blur=2.0), scene(n + 50, blur=2.0)) for n in range(5)]
    test = [(scene(n + 100, blur=0.8), scene(n + 150, blur=0.8)) for n in range(5)]
    found = splits(train=train, val=train, test=test)
    assert [(each.split, each.date) for each in found][:3] == [
        ("train", "before"),
        ("train", "after"),
        ("val", "before"),
    ]
    (warning,) = sharpness_warnings(found)
    ratio = found[4].relative / found[0].relative
    assert 1.5 < ratio < 3 and warning.startswith("splits are not equally sharp: test ")
    for words in ("times as sharp as train", "augmentation.sharpen"):
        assert words in warning
    table = sharpness_table(found)
    assert table[0][-1] == "1.00" and float(table[4][-1]) == pytest.approx(ratio, abs=0.01)


def test_a_blurred_date_is_warned_of_and_a_paler_one_is_not() -> None:
    blurred = [(scene(n), scene(n + 50, blur=2.0)) for n in range(4)]
    (warning,) = sharpness_warnings(splits(train=blurred))
    assert warning.startswith("dates are not equally sharp: train before is ")
    paler = [(scene(n), scene(n + 50, gain=0.3)) for n in range(4)]
    found = splits(train=paler, test=blurred[:0])
    assert len(found) == 2 and found[1].gradient < 0.4 * found[0].gradient and not sharpness_warnings(found)


def test_facts_of_a_sample_go_through_json_and_older_ones_have_none() -> None:
    image = scene(3).astype(np.uint8)
    valid = np.stack([EVERYWHERE, np.zeros_like(EVERYWHERE)])
    sample = Samples(before=image, after=image, valid=valid, label=np.zeros((96, 96), np.uint8))
    facts = look_at(sample, max_nodata=0.5)
    assert facts.sharpness == (sharpness_of(image, EVERYWHERE), None)
    assert SampleFacts.from_json(facts.to_json()) == facts
    assert SampleFacts.from_json(facts.to_json()[:8]).sharpness == (None, None)


def test_the_training_part_of_levir_at_one_metre_is_blurred(shared: Path) -> None:
    """About 12.8 and 9.7 against 29.7 and 20.9 of the test part, as was measured when the trap was found."""
    levir = shared / "data/levir-1m"

    def of(split: str) -> list[list[Sharpness | None]]:
        names = sorted(path.name for path in (levir / split / "A").iterdir())[:: 12 if split == "train" else 2]
        images = [[np.asarray(Image.open(levir / split / d / n)).transpose(2, 0, 1) for d in "AB"] for n in names]
        everywhere = np.ones(images[0][0].shape[1:], dtype=bool)
        return [[sharpness_of(date, everywhere) for date in dates] for dates in images]

    found = split_sharpness({"train": of("train"), "test": of("test")})
    assert [each.gradient for each in found] == pytest.approx([12.8, 9.7, 29.7, 20.9], rel=0.25)
    (warning,) = sharpness_warnings(found)
    assert "splits are not equally sharp: test" in warning

"""Labels as they are found in the wild (trap 6 of the paper's code): recognised and binarised, or refused by name."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from storage.datasets.label_values import binarise, coding_of, common_coding, histogram, one_band
from storage.errors import InputError

SHAPE = np.zeros((96, 96), dtype=np.uint8)
SHAPE[20:50, 30:70] = 1
SHAPE[60:90, 10:25] = 1


def as_jpeg(values: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("high", [1, 255])
def test_two_values_are_recognised(high: int) -> None:
    coding = coding_of("a.png", histogram(SHAPE * high))
    assert coding == f"0/{high}"
    np.testing.assert_array_equal(binarise(SHAPE * high, coding), SHAPE)


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_softens_a_label_and_it_is_still_read(quality: int) -> None:
    soft = as_jpeg(SHAPE * 255, quality)
    assert len(np.unique(soft)) > 2
    assert coding_of("a.jpg", histogram(soft)) == "0/255"
    assert (binarise(soft, "0/255") != SHAPE).mean() < 0.002


def test_the_label_that_the_authors_ship_has_a_few_twos(shared: Path) -> None:
    values = np.asarray(Image.open(shared / "data/pairs/cdd/out/00000.jpg"))
    assert coding_of("out.jpg", histogram(values)) == "0/1"
    changed = binarise(values, "0/1")
    # the authors' scripts ask for `> 1`, by which this label has next to no change
    assert (values > 1).sum() < 10 < 20_000 < changed.sum()


def test_nothing_changed_fits_every_coding() -> None:
    empty = histogram(SHAPE * 0)
    assert coding_of("a.png", empty) == "unchanged"
    assert common_coding({"a": "unchanged", "b": "0/255"}) == "0/255"


def test_all_changed_is_read_as_such() -> None:
    assert coding_of("a.png", histogram(np.full((8, 8), 255, dtype=np.uint8))) == "0/255"


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 128, 255] * 30, dtype=np.uint8),
        np.array([0, 1, 2, 3, 4] * 30, dtype=np.uint8),
        np.array([0, 7] * 30, dtype=np.uint8),
        np.arange(256, dtype=np.uint8),
        np.array([0.0, 0.5, 1.0] * 30, dtype=np.float32),
        np.array([0, 1000] * 30, dtype=np.uint16),
        np.array([0, 0, 0, 1, 2, 2] * 30, dtype=np.uint8),
    ],
    ids=["three classes", "five classes", "seven", "a photograph", "shares", "large", "0, 1 and 2 alike"],
)
def test_anything_else_is_refused_with_name_and_values(values: NDArray[np.generic]) -> None:
    with pytest.raises(InputError, match=r"strange\.png is no label.*this one has \d"):
        coding_of("strange.png", histogram(values))


def test_two_codings_in_one_dataset_are_refused() -> None:
    with pytest.raises(InputError, match=r"a\.png has 0/1 and b\.png has 0/255"):
        common_coding({"a.png": "0/1", "b.png": "0/255", "c.png": "unchanged"})


def test_a_dataset_without_change_is_refused() -> None:
    with pytest.raises(InputError, match="not one changed pixel in 2 label files"):
        common_coding({"a.png": "unchanged", "b.png": "unchanged"})


def test_rgb_copies_are_one_band_and_colours_are_refused() -> None:
    np.testing.assert_array_equal(one_band("a.png", np.stack([SHAPE] * 3)), SHAPE)
    coloured = np.stack([SHAPE * 255, SHAPE * 0, SHAPE * 0])
    with pytest.raises(InputError, match=r"a\.png is coloured, pixel \(20, 30\) is \(255, 0, 0\)"):
        one_band("a.png", coloured)


@given(st.lists(st.sampled_from([0, 255]), min_size=1, max_size=50))
def test_exact_labels_never_change_their_meaning(values: list[int]) -> None:
    array = np.array(values, dtype=np.uint8)
    coding = coding_of("a.png", histogram(array))
    if coding != "unchanged":
        np.testing.assert_array_equal(binarise(array, coding), array // 255)  # type: ignore[arg-type]

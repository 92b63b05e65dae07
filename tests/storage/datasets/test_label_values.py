"""Labels as they are found in the wild (trap 6 of the paper's code): recognised and read, or refused by name."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from storage.datasets.label_options import LabelOptions
from storage.datasets.label_rules import LabelError, LabelRule, rule_of
from storage.datasets.label_values import (
    DECLARED,
    PLAIN,
    TRANSPARENT,
    LabelCounts,
    coding_of,
    count_label,
    histogram,
    one_band,
)
from storage.errors import InputError

SHAPE = np.zeros((96, 96), dtype=np.uint8)
SHAPE[20:50, 30:70] = 1
SHAPE[60:90, 10:25] = 1


def as_jpeg(values: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def plain(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The state of pixels of which nothing is said."""
    return np.full(values.shape, PLAIN, dtype=np.uint8)


def rule_for(*images: NDArray[Any], **named: tuple[float, ...]) -> LabelRule:
    """The rule of a dataset of these label rasters."""
    counts = {f"{n}.png": count_label(image, plain(image)) for n, image in enumerate(images)}
    return rule_of(counts, LabelOptions(**named))


def read(rule: LabelRule, values: NDArray[Any]) -> NDArray[np.uint8]:
    return rule.apply("a.png", values, plain(values))


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float64"])
def test_two_values_are_recognised(high: int, dtype: str) -> None:
    values = (SHAPE.astype(dtype) * high).astype(dtype)
    rule = rule_for(values)
    np.testing.assert_array_equal(read(rule, values), SHAPE)
    assert rule.to_dict()["changed"] == [high] and not rule.warnings


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_softens_a_label_and_it_is_still_read(quality: int) -> None:
    soft = as_jpeg(SHAPE * 255, quality)
    assert len(np.unique(soft)) > 2
    rule = rule_for(soft, SHAPE * 0, SHAPE * 255)
    assert (read(rule, soft) != SHAPE).mean() < 0.002
    np.testing.assert_array_equal(read(rule, soft), soft >= 128)


def test_the_label_that_the_authors_ship_has_a_few_twos(shared: Path) -> None:
    values = np.asarray(Image.open(shared / "data/pairs/cdd/out/00000.jpg"))
    rule = rule_for(values)
    changed = read(rule, values)
    np.testing.assert_array_equal(changed, values >= 1)
    # the authors' scripts ask for `> 1`, by which this label has next to no change
    assert (values > 1).sum() < 10 < 20_000 < changed.sum()
    assert any("taken for changed" in text for text in rule.warnings)


@pytest.mark.parametrize("data", ["levir/label", "pairs/levir/label", "pairs/dsifn/label"])
def test_published_labels_are_read_as_half_of_their_range(shared: Path, data: str) -> None:
    images = [np.asarray(Image.open(path).convert("L")) for path in sorted((shared / "data" / data).iterdir())]
    rule = rule_for(*images)
    for image in images:
        np.testing.assert_array_equal(read(rule, image), image >= 128)


def test_255_beside_1_is_ignored() -> None:
    values = np.zeros((512, 512), dtype=np.uint8)
    values[:240, :240], values[:, 493:] = 1, 255
    rule = rule_for(values, SHAPE, SHAPE * 0, np.where(SHAPE, np.uint8(0), np.uint8(255))[:48])
    label = read(rule, values)
    np.testing.assert_array_equal(label, values)
    assert (label == 1).sum() / (label != 255).sum() == pytest.approx(0.2281, abs=1e-4)
    assert any("255" in text and "--ignored" in text for text in rule.warnings)


def test_255_beside_a_rare_1_is_a_question() -> None:
    values = SHAPE * 255
    values[0, :3] = 1
    with pytest.raises(InputError, match=r"1 is rare .*is 255 changed, or not known\? say with --changed"):
        rule_for(values, SHAPE * 255)


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 128, 255] * 30, dtype=np.uint8),
        np.array([0, 1, 2, 255] * 30, dtype=np.uint8),
        np.array([0, 1, 2, 3, 4] * 30, dtype=np.uint8),
        np.array([0, 7] * 30, dtype=np.uint8),
        np.array([1, 2] * 30, dtype=np.uint8),
        np.array([0, 2] * 30, dtype=np.uint8),
        np.arange(256, dtype=np.uint8),
        np.array([0.0, 0.5, 1.0] * 30, dtype=np.float32),
        np.array([0, 1000] * 30, dtype=np.uint16),
        np.array([-1, 0, 1] * 30, dtype=np.int16),
        np.array([0, 0, 0, 1, 2, 2] * 30, dtype=np.uint8),
    ],
)
def test_anything_else_is_refused_with_name_values_and_options(values: NDArray[np.generic]) -> None:
    with pytest.raises(LabelError, match=r"0\.png is no label.*this one has -?\d.*--changed, --unchanged and"):
        rule_for(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1] * 200 + [2], r"all that is labelled .* is changed by the rule 1 to 2 changed, 0 unchanged"),
        ([255] * 9, r"all that is labelled .* is changed by the rule 255 changed"),
        ([1, 255] * 9, r"all that is labelled .* is changed by the rule 1 changed, 0 unchanged, 255 ignored"),
        ([0] * 9, r"not one changed pixel in 1 label files"),
        (
            [0, 1] + [255] * 9,
            r"81\.8% of the labels' pixels are ignored by the rule 1 changed, 0 unchanged, 255",
        ),
    ],
)
def test_a_dataset_of_one_class_or_mostly_ignored_is_refused_with_its_rule(values: list[int], words: str) -> None:
    with pytest.raises(LabelError, match=words):
        rule_for(np.array(values, dtype=np.uint8))


def test_options_settle_it_and_win() -> None:
    values = SHAPE + 1
    np.testing.assert_array_equal(read(rule_for(values, changed=(2,), unchanged=(1,)), values), SHAPE)
    inverted = rule_for(SHAPE * 255, changed=(0,), unchanged=(255,))
    np.testing.assert_array_equal(read(inverted, SHAPE * 255), 1 - SHAPE)
    three = np.array([[0, 1, 255, 255, 255]], dtype=np.uint8)
    rule = rule_for(three, ignored=(255,))
    np.testing.assert_array_equal(read(rule, three), three)
    assert any("60.0% of the labels' pixels are ignored" in text for text in rule.warnings)
    with pytest.raises(LabelError, match=r"none of --changed, --unchanged and --ignored names: 255 \(3 px\)"):
        rule_for(three, changed=(1,), unchanged=(0,))
    with pytest.raises(LabelError, match=r"names: 0 \(1 px\), 255 \(3 px\)"):
        rule_for(three, changed=(1,))
    with pytest.raises(InputError, match="--changed and --ignored both name 1"):
        LabelOptions(changed=(1,), ignored=(1, 2))


def test_mostly_changed_is_a_warning_with_the_options() -> None:
    assert any("the opposite" in text and "--changed" in text for text in rule_for(1 - SHAPE).warnings)


@pytest.mark.parametrize("nodata", [0, 1])
def test_nodata_that_is_one_of_the_two_values_is_that_value(nodata: int) -> None:
    state = np.where(nodata == SHAPE, DECLARED, PLAIN).astype(np.uint8)
    rule = rule_of({"a.tif": count_label(SHAPE, state)})
    np.testing.assert_array_equal(rule.apply("a.tif", SHAPE, state), SHAPE)
    assert any("nodata" in text for text in rule.warnings)


def test_nodata_that_is_no_class_is_ignored() -> None:
    for outside, low, named in ((255, 0, {}), (-9999, 0, {}), (0, 1, {"changed": (2,), "unchanged": (1,)})):
        values = SHAPE.astype(np.int16) + low
        values[:5] = outside
        state = np.where(values == outside, DECLARED, PLAIN).astype(np.uint8)
        label = rule_of({"a": count_label(values, state)}, LabelOptions(**named)).apply("a", values, state)
        assert (label[:5] == 255).all()
        np.testing.assert_array_equal(label[5:], SHAPE[5:])


def test_transparent_where_unchanged_is_unchanged_and_else_ignored() -> None:
    state = np.where(SHAPE == 0, TRANSPARENT, PLAIN).astype(np.uint8)
    rule = rule_of({"a.png": count_label(SHAPE * 255, state)})
    np.testing.assert_array_equal(rule.apply("a.png", SHAPE * 255, state), SHAPE)
    assert any("transparent" in text for text in rule.warnings)
    state = plain(SHAPE)
    state[:10] = TRANSPARENT
    label = rule_of({"a.png": count_label(SHAPE, state)}).apply("a.png", SHAPE, state)
    assert (label[:10] == 255).all() and (label[10:] == SHAPE[10:]).all()


def test_no_number_is_ignored() -> None:
    values = SHAPE.astype(np.float32)
    values[:7] = np.nan
    label = read(rule_for(values), values)
    assert (label[:7] == 255).all() and (label[7:] == SHAPE[7:]).all()


def test_two_codings_in_one_dataset_are_refused() -> None:
    with pytest.raises(LabelError, match=r"0\.png has 0/1 and 1\.png has 0/255"):
        rule_for(SHAPE, SHAPE * 255, SHAPE * 0)


def test_each_raster_that_is_no_label_is_named() -> None:
    with pytest.raises(LabelError) as caught:
        rule_for(SHAPE, SHAPE * 7, SHAPE * 9)
    assert [text.split()[0] for text in caught.value.problems] == ["1.png", "2.png"]


def test_a_value_that_the_rule_does_not_name_is_never_guessed() -> None:
    with pytest.raises(InputError, match=r"a\.png has the values \[7\]"):
        read(rule_for(SHAPE), SHAPE * 7)


def test_masks_of_two_dates_may_be_full() -> None:
    counts = {"a": count_label(SHAPE * 0 + 1, plain(SHAPE)), "b": count_label(SHAPE * 0 + 1, plain(SHAPE))}
    assert rule_of(counts, are_masks=True).to_dict()["changed"] == [1]


def test_rgb_copies_are_one_band_and_colours_are_refused() -> None:
    np.testing.assert_array_equal(one_band("a.png", np.stack([SHAPE] * 3)), SHAPE)
    coloured = np.stack([SHAPE * 255, SHAPE * 0, SHAPE * 0])
    with pytest.raises(InputError, match=r"a\.png is coloured, pixel \(20, 30\) is \(255, 0, 0\)"):
        one_band("a.png", coloured)


@given(st.lists(st.sampled_from([0, 255]), min_size=1, max_size=50))
def test_exact_labels_never_change_their_meaning(values: list[int]) -> None:
    array = np.array(values, dtype=np.uint8)
    assert coding_of("a.png", histogram(array)) in ("unchanged", "0/255")
    if len(set(values)) == 2:
        np.testing.assert_array_equal(read(rule_for(array), array), array // 255)


@given(
    st.lists(st.sampled_from([0, 1, 2, 7, 127, 128, 254, 255, -1]), min_size=1, max_size=60),
    st.lists(st.sampled_from([PLAIN, DECLARED, TRANSPARENT]), min_size=60, max_size=60),
)
def test_whatever_is_read_has_both_classes_and_what_is_counted(values: list[int], states: list[int]) -> None:
    array, state = np.array(values, dtype=np.int16), np.array(states[: len(values)], dtype=np.uint8)
    counts = count_label(array, state)
    assert LabelCounts.from_json(json.loads(json.dumps(counts.to_json()))) == counts
    try:
        rule = rule_of({"a.tif": counts})
    except LabelError:
        return
    label = rule.apply("a.tif", array, state)
    assert rule.shares(counts) == tuple(int((label == value).sum()) for value in (1, 0, 255))
    assert {0, 1} <= set(label.tolist()) and (label == 255).mean() <= 0.5


def test_bands_of_0_and_1_are_no_copies_where_they_differ() -> None:
    one_hot = np.stack([SHAPE > 0, SHAPE == 0]).astype(np.uint8)
    with pytest.raises(InputError, match="a label has one band"):
        one_band("a.tif", one_hot)

"""Augmentation: what moves pixels moves them alike, what changes values does so per date, and a seed says it all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dasnet.training.augment import Sample
from dasnet.training.augmentation import PSEUDO_CHANGES, Augmentation

EVERYTHING = replace(PSEUDO_CHANGES, crop=32, hue=0.03, noise=0.02, nodata=0.5)


def coded(side: int = 48, bands: int = 3, dtype: torch.dtype = torch.uint8) -> Sample:
    """Every pixel knows its row and column, in both dates and, one bit of it, in the label; a corner is invalid."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    planes = [y + 1, x + 1, (y * 7 + x * 3) % 251 + 1, y + x + 1][:bands]
    image = torch.stack(planes).to(dtype)
    valid = torch.ones(2, side, side, dtype=torch.bool)
    valid[0, :9, :5] = False
    label = ((y * 5 + x) % 3 == 0).to(torch.uint8)
    label[~valid.all(dim=0)] = 255
    return Sample(before=image * valid[0], after=image * valid[1], valid=valid, label=label)


def plain(side: int = 64, width: int | None = None) -> Sample:
    """One grey everywhere: whatever differs afterwards was drawn."""
    width = width or side
    grey = torch.full((3, side, width), 120, dtype=torch.uint8)
    valid = torch.ones(2, side, width, dtype=torch.bool)
    return Sample(before=grey, after=grey, valid=valid, label=torch.zeros(side, width, dtype=torch.uint8))


def equal(a: Sample, b: Sample) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("before", "after", "valid", "label"))


@given(seed=st.integers(0, 2**32 - 1), crop=st.sampled_from([0, 8, 24, 48]))
@settings(max_examples=60)
def test_pixels_dates_validity_and_label_move_together(seed: int, crop: int) -> None:
    found = Augmentation(crop=crop)(coded(), seed=seed)
    side = crop or 48
    assert found.before.shape == (3, side, side) and found.label.shape == (side, side)
    assert found.before.dtype == torch.float32
    y, x = found.after[0].long() - 1, found.after[1].long() - 1  # the second date is valid everywhere
    expected = ((y * 5 + x) % 3 == 0).to(torch.uint8)
    gone = (y < 9) & (x < 5)
    assert torch.equal(found.label, torch.where(gone, 255, expected).to(torch.uint8))
    assert torch.equal(found.valid[0], ~gone) and found.valid[1].all()
    assert torch.equal(found.before, found.after * ~gone)
    assert len(torch.unique(y * 48 + x)) == side * side  # a turn and a crop, nothing interpolated


def test_all_eight_orientations_occur_alike_often() -> None:
    seen: dict[bytes, int] = {}
    for seed in range(400):
        found = Augmentation()(coded(8), seed=seed).after
        seen[found.numpy().tobytes()] = seen.get(found.numpy().tobytes(), 0) + 1
    assert len(seen) == 8 and min(seen.values()) > 25


@pytest.mark.parametrize("strength", ["brightness", "contrast", "saturation", "season", "haze", "blur", "noise", "hue"])
def test_what_changes_values_does_so_to_each_date_on_its_own(strength: str) -> None:
    sample = coded()
    augmentation = Augmentation(flips=False, **{strength: {"hue": 0.3, "blur": 0.5, "noise": 0.1}.get(strength, 0.6)})
    results = [augmentation(sample, seed=seed) for seed in range(8)]
    here = sample.valid.all(dim=0)
    assert any(not torch.allclose(r.before[:, here], r.after[:, here], atol=0.5) for r in results)
    for found in results:
        assert torch.equal(found.valid, sample.valid) and torch.equal(found.label, sample.label)
        assert found.before.min() >= 0 and found.after.max() <= 255


def test_a_seed_says_it_all_whatever_the_thread_and_the_global_generator() -> None:
    sample = coded()
    alone = [EVERYTHING(sample, seed=seed) for seed in range(16)]
    torch.manual_seed(1234)
    state = torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: EVERYTHING(sample, seed=seed), range(16)))
    assert all(equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert not equal(alone[0], alone[1])


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_invalid_pixels_stay_invalid_empty_and_unlabelled(seed: int) -> None:
    found = EVERYTHING(coded(), seed=seed)
    assert not found.before[:, ~found.valid[0]].any() and not found.after[:, ~found.valid[1]].any()
    assert (found.label[~found.valid.all(dim=0)] == 255).all()
    assert set(torch.unique(found.label).tolist()) <= {0, 1, 255}


def centroid(image: Tensor) -> tuple[float, float]:
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in image.shape), indexing="ij")
    return float((image * y).sum() / image.sum()), float((image * x).sum() / image.sum())


def test_a_shift_moves_the_second_date_alone_and_no_farther_than_asked() -> None:
    dot = torch.zeros(1, 33, 33, dtype=torch.uint8)
    dot[:, 16, 16] = 255
    sample = Sample(
        before=dot,
        after=dot,
        valid=torch.ones(2, 33, 33, dtype=torch.bool),
        label=torch.zeros(33, 33, dtype=torch.uint8),
    )
    moves = []
    for seed in range(40):
        found = Augmentation(flips=False, shift=0.7)(sample, seed=seed)
        assert torch.equal(found.before, dot.float())
        y, x = centroid(found.after[0])
        moves.append((y - 16, x - 16))
        assert max(abs(y - 16), abs(x - 16)) <= 0.7 + 1e-4
        assert (found.label == 255).any() and (found.label[2:-2, 2:-2] == 0).all()  # what comes from outside is unknown
    assert max(abs(y) for y, _ in moves) > 0.4 and max(abs(x) for _, x in moves) > 0.4


def test_the_two_axes_shift_on_their_own_and_the_second_date_keeps_its_own_values() -> None:
    flat = plain(33)
    sample = replace(flat, before=torch.full_like(flat.before, 40), after=flat.after.clone())
    sample.after[:, 16, 16] = 255
    moves = []
    for seed in range(20):
        found = Augmentation(flips=False, shift=0.7)(sample, seed=seed)
        assert (found.before == 40).all() and found.valid[0].all()
        inner = found.after[0, 2:-2, 2:-2] - 120
        y, x = centroid(inner)
        assert inner.sum() == pytest.approx(135, rel=1e-3)
        moves.append((y - 14, x - 14))
    assert any(abs(y - x) > 0.3 for y, x in moves) and any(abs(y + x) > 0.3 for y, x in moves)


def test_data_go_missing_along_an_edge_of_one_date_as_often_as_asked() -> None:
    often = [Augmentation(flips=False, nodata=0.3)(plain(32), seed=seed).valid for seed in range(300)]
    gone = torch.stack([(~valid).any(dim=2).any(dim=1) for valid in often])
    assert 0.2 < gone.any(dim=1).float().mean() < 0.4
    assert not gone.all(dim=1).any() and (gone.sum(dim=0) > 20).all()  # one date at a time, either of them
    for valid in often:
        edges = torch.cat([valid[:, 0], valid[:, -1], valid[..., 0], valid[..., -1]], dim=1)
        assert edges.all() == valid.all()  # a hole always reaches the edge
    assert all(Augmentation(flips=False)(plain(32), seed=seed).valid.all() for seed in range(20))


@pytest.mark.parametrize(("height", "width"), [(24, 40), (40, 24)])
def test_samples_need_not_be_square(height: int, width: int) -> None:
    everything = replace(EVERYTHING, crop=0, nodata=1.0)
    for seed in range(16):
        found = everything(plain(height, width), seed=seed)
        assert found.label.shape in ((height, width), (width, height))
        assert found.before.shape[1:] == found.after.shape[1:] == found.valid.shape[1:] == found.label.shape


def test_crops_reach_every_corner() -> None:
    sample = coded(24)
    corners = set()
    for seed in range(200):
        found = Augmentation(flips=False, crop=8)(sample, seed=seed).after
        corners.add((int(found[0, 0, 0]) - 1, int(found[1, 0, 0]) - 1))
    rows, cols = ({corner[axis] for corner in corners} for axis in (0, 1))
    assert rows == cols == set(range(17)) and len(corners) > 100


def test_a_blur_draws_nothing_from_invalid_pixels_and_comes_as_often_as_asked() -> None:
    sample = plain()
    sample.valid[0, :32] = False
    sample = replace(sample, before=sample.before * sample.valid[0])
    for seed in range(4):
        found = Augmentation(flips=False, blur=1.0)(sample, seed=seed)
        assert torch.allclose(found.before[:, 32:], torch.full((3, 32, 64), 120.0), atol=1e-3)  # no seam
        assert not found.before[:, :32].any()
    speckled = plain(16)
    speckled.before[:, 8, 8] = 255  # both dates are one tensor
    drawn = [Augmentation(flips=False, blur=0.3)(speckled, seed=seed) for seed in range(300)]
    share = sum(int(image[0, 8, 8] < 254) for found in drawn for image in (found.before, found.after)) / 600
    assert 0.2 < share < 0.4


def test_a_veil_varies_smoothly_over_the_image() -> None:
    veiled = [Augmentation(flips=False, haze=0.9)(plain(), seed=seed).before[0] for seed in range(20)]
    assert max(float(image.max() - image.min()) for image in veiled) > 20
    for image in veiled:
        assert max(float(image.diff(dim=d).abs().max()) for d in (0, 1)) < 10  # grey levels from pixel to pixel


def test_a_season_changes_each_band_on_its_own() -> None:
    found = [Augmentation(flips=False, season=0.3)(plain(8), seed=seed).before.mean(dim=(1, 2)) for seed in range(10)]
    assert all(len({round(value, 2) for value in bands.tolist()}) == 3 for bands in found)
    # the gain as well as the offset: it is the contrast of a band
    spread = plain(8)
    spread.before[:, ::2] = 160
    spreads = [Augmentation(flips=False, season=0.3)(spread, seed=seed).before.std(dim=(1, 2)) for seed in range(10)]
    assert all(len({round(value, 3) for value in bands.tolist()}) == 3 for bands in spreads)


@pytest.mark.parametrize(("dtype", "peak"), [(torch.uint16, 65535.0), (torch.float32, 1.0)])
def test_other_types_and_band_counts(dtype: torch.dtype, peak: float) -> None:
    sample = coded(bands=4)
    scale = peak / 255
    if dtype == torch.uint16:
        images = [(image.to(torch.int32) * 257).to(torch.uint16) for image in (sample.before, sample.after)]
    else:
        images = [image.float() * scale for image in (sample.before, sample.after)]
    found = EVERYTHING(replace(sample, before=images[0], after=images[1]), seed=5)
    reference = EVERYTHING(sample, seed=5)
    assert torch.allclose(found.before, reference.before * scale, rtol=1e-4, atol=1e-4 * peak)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"haze": 1.0}, {"haze": -0.1}, {"haze": float("nan")}, {"hue": 0.6}, {"blur": 1.1}, {"shift": 99}),
        *({"crop": 12}, {"crop": 16.0}, {"peak": -1}, {"peak": float("inf")}),
    ],
)
def test_strengths_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} {value}"):
        Augmentation(**wrong)  # type: ignore[arg-type]


def test_a_crop_larger_than_the_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="a crop of 64 px does not fit into samples of 48 × 48 px"):
        Augmentation(crop=64)(coded(), seed=0)

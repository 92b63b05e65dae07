"""Feeding: what is drawn belongs to the sample, what is applied takes it by itself, and what is read is kept."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dasnet.networks._torchvision import transforms_v2
from dasnet.training import augment
from dasnet.training.augment import Sample
from dasnet.training.augmentation import PSEUDO_CHANGES, Augmentation
from dasnet.training.draws import Draws, OfDate, OfPair, drawn
from dasnet.training.samples import KeptSamples, assemble, prefetched, read_crops
from tests.dasnet.training.training_data import SIDE, Squares, Stored

EVERYTHING = replace(
    PSEUDO_CHANGES,
    crop=32,
    hue=0.05,
    noise=0.02,
    nodata=0.5,
    blur=0.4,
    blur_limit=2.0,
    sharpen=0.6,
    scale=0.25,
    mixed_dates=True,
)


def same(sample: Sample, batch: Any, place: int) -> bool:
    pairs = len(batch.labels)
    return (
        torch.equal(sample.before, batch.images[place])
        and torch.equal(sample.after, batch.images[pairs + place])
        and torch.equal(sample.valid, batch.valid[[place, pairs + place], 0])
        and torch.equal(sample.label, batch.labels[place])
    )


def stored(source: Squares, index: int) -> Sample:
    one = source.read([index])
    before, after, valid, label = (torch.from_numpy(part[0]) for part in (one.before, one.after, one.valid, one.label))
    return Sample(before=before, after=after, valid=valid, label=label)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("crop", [0, 24, 40])
def test_a_sample_has_the_same_bits_alone_in_any_batch_and_in_any_chunk(
    crop: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, augmentation = Squares(), replace(EVERYTHING, crop=crop)
    for date in ("before", "after"):
        images = getattr(source, date).astype(dtype)
        setattr(source, date, images * 250 if dtype == "uint16" else images / 255 if dtype == "float32" else images)
        setattr(source, date, getattr(source, date).astype(dtype))
    indices, seeds = [3, 1, 1, 8, 15, 0, 7], [5, 6, 7, 2**32 - 1, 9, 10, 11]
    alone = [augmentation(stored(source, index), seed=seed) for index, seed in zip(indices, seeds, strict=True)]
    for values_at_once in (1, 1 << 16, 1 << 30):  # one by one, as usual, all of them
        monkeypatch.setattr("dasnet.training.samples._AT_ONCE", values_at_once)
        batch = assemble(source, indices, augmentation, seeds)
        assert all(same(sample, batch, place) for place, sample in enumerate(alone))
    other = assemble(source, indices[2:5], augmentation, seeds[2:5])
    assert all(same(sample, other, place) for place, sample in enumerate(alone[2:5]))
    assert not same(alone[1], batch, 2)  # the same sample by another seed


def test_one_torch_thread_and_four_give_the_same_bits() -> None:
    big = Sample(
        before=torch.rand(3, 300, 310) * 255,
        after=torch.rand(3, 300, 310) * 255,
        valid=torch.rand(2, 300, 310) > 0.1,
        label=torch.zeros(300, 310, dtype=torch.uint8),
    )
    augmentation = replace(EVERYTHING, crop=0, peak=255.0)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        results.append(augmentation(big, seed=4))
    torch.set_num_threads(before)
    assert torch.equal(results[0].before, results[1].before) and torch.equal(results[0].after, results[1].after)


def only(place: OfDate, number: float, *, pairs: int = 1, bands: int = 3) -> Draws:
    """Draws in which one number of every date is known."""
    _, draws = drawn(0, Augmentation(), bands=bands, height=8, width=8)
    numbers = draws.numbers.repeat(pairs, 1)
    for date in (0, 1):
        numbers[:, 16 + date * 32 + place] = number
    return Draws(numbers=numbers, seeds=torch.arange(pairs))


IMAGES = torch.rand(4, 3, 40, 56, generator=torch.Generator().manual_seed(1))
VALID = torch.ones(4, 40, 56, dtype=torch.bool)
_ops = transforms_v2.functional


@pytest.mark.parametrize("number", [0.0, 0.2, 0.77, 0.999])
def test_hue_and_saturation_are_torchvisions(number: float) -> None:
    plain = Augmentation(flips=False)
    turned = augment._recoloured(IMAGES.clone(), VALID, only(OfDate.HUE, number, pairs=2), replace(plain, hue=0.3))
    assert torch.allclose(turned, _ops.adjust_hue(IMAGES, -0.3 + 0.6 * number), atol=2e-6)
    pale = augment._recoloured(
        IMAGES.clone(), VALID, only(OfDate.SATURATION, number, pairs=2), replace(plain, saturation=0.5)
    )
    assert torch.allclose(pale, _ops.adjust_saturation(IMAGES, 0.5 + number), atol=2e-6)


def test_the_blur_is_torchvisions() -> None:
    draws = only(OfDate.BLUR, 0.0, pairs=2)
    found = augment._focused(IMAGES.clone(), VALID, draws, Augmentation(blur=0.5))
    assert torch.allclose(found, _ops.gaussian_blur(IMAGES, kernel_size=[5, 5], sigma=[0.9, 0.9]), atol=1e-6)
    sigma = draws.of_dates(OfDate.BLUR_SIGMA) * (2.0 - 0.3) + 0.3
    found = augment._focused(IMAGES.clone(), VALID, draws, Augmentation(blur=0.5, blur_limit=2.0))
    for image, blurred, one in zip(IMAGES, found, sigma.tolist(), strict=True):
        assert torch.allclose(blurred, _ops.gaussian_blur(image, kernel_size=[13, 13], sigma=[one, one]), atol=1e-6)


def test_sharpening_adds_what_a_blur_takes_away() -> None:
    draws = only(OfDate.SHARPEN, 0.0, pairs=2)
    strength = draws.of_dates(OfDate.SHARPEN_STRENGTH)[:, None, None, None] * 3.0
    soft = _ops.gaussian_blur(IMAGES, kernel_size=[7, 7], sigma=[1.0, 1.0])
    found = augment._focused(IMAGES.clone(), VALID, draws, Augmentation(sharpen=0.5, sharpen_limit=3.0))
    assert torch.allclose(found, IMAGES + strength * (IMAGES - soft), atol=1e-5)
    blurred = only(OfDate.BLUR, 0.0, pairs=2)
    both = augment._focused(IMAGES.clone(), VALID, blurred, Augmentation(blur=1, sharpen=1))
    assert torch.equal(both, augment._focused(IMAGES.clone(), VALID, blurred, Augmentation(blur=1)))


@pytest.mark.parametrize("largest", [0.7, 1.0, 3.4])
def test_a_shift_is_torchvisions_affine(largest: float) -> None:
    draws = only(OfDate.HUE, 0.5, pairs=2)
    valid = VALID.clone()
    valid[2, :7, :9] = False
    moved, there = augment._shifted(IMAGES.clone(), valid, draws, largest)
    assert torch.equal(moved[:2], IMAGES[:2]) and torch.equal(there[:2], valid[:2])
    x, y = ((draws.of_pair(axis) * 2 - 1) * largest for axis in (OfPair.SHIFT_X, OfPair.SHIFT_Y))
    for n in range(2):
        expected = _ops.affine(
            torch.cat([IMAGES[2 + n], valid[2 + n, None].float()]),
            angle=0.0,
            translate=[float(x[n]), float(y[n])],
            scale=1.0,
            shear=[0.0, 0.0],
            interpolation=transforms_v2.InterpolationMode.BILINEAR,
        )
        assert torch.allclose(moved[2 + n], expected[:-1], atol=2e-5)
        assert torch.equal(there[2 + n], expected[-1] > 0.999)


def test_a_veil_is_what_torch_interpolates() -> None:
    veil = torch.rand(4, 4, 4)
    expected = F.interpolate(veil[:, None], size=(40, 56), mode="bilinear", align_corners=True)[:, 0]
    assert torch.allclose(augment._stretched(veil, 40, 56), expected, atol=1e-6)


def test_season_brightness_and_contrast_one_after_the_other() -> None:
    """As one gain and one offset of each band; here step by step."""
    draws = only(OfDate.HUE, 0.5, pairs=2)
    valid = VALID.clone()
    valid[1, :, :20] = False
    images = IMAGES * valid[:, None]
    strengths = Augmentation(season=0.3, brightness=0.2, contrast=0.4)
    found = augment._relit(images.clone(), valid, draws, strengths)
    gains, offsets = draws.season
    for n in range(4):
        here = valid[n]
        mean = images[n][:, here].mean(dim=1)[:, None, None]
        step = (images[n] - mean) * (0.7 + 0.6 * gains[n, :, None, None]) + mean * (
            1 + 0.3 * (offsets[n, :, None, None] - 0.5)
        )
        step = step * (0.8 + 0.4 * draws.of_dates(OfDate.BRIGHTNESS)[n])
        centre = step[:, here].mean()
        step = (step - centre) * (0.6 + 0.8 * draws.of_dates(OfDate.CONTRAST)[n]) + centre
        assert torch.allclose(found[n][:, here], step[:, here], atol=2e-6)


def test_noise_is_normal_and_every_value_has_its_own() -> None:
    noise = augment._noise(torch.tensor([1, 2]), torch.empty(4, 3, 96, 96))
    assert noise.mean().abs() < 0.01 and (noise.std() - 1).abs() < 0.01
    assert (noise.abs() > 2).float().mean() == pytest.approx(0.0455, abs=0.01)
    flat = noise.flatten(1)
    correlations = torch.corrcoef(torch.cat([flat, flat.roll(1, 1), flat.roll(96, 1)]))
    assert (correlations - torch.eye(len(correlations))).abs().max() < 0.03


@given(seed=st.integers(0, 2**32 - 1), crop=st.sampled_from([0, 24, 40]))
@settings(max_examples=40)
def test_a_zoom_keeps_both_dates_and_label_together(seed: int, crop: int) -> None:
    side = 48
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image = torch.stack([y, x, y + x]).float()
    label = ((y // 8 + x // 8) % 2).to(torch.uint8)
    sample = Sample(before=image, after=image, valid=torch.ones(2, side, side, dtype=torch.bool), label=label)
    found = Augmentation(flips=False, crop=crop, scale=0.3, peak=96.0)(sample, seed=seed)
    assert found.label.shape == (crop or side, crop or side) and torch.equal(found.before, found.after)
    steps = found.before[0].diff(dim=0)[2:-2]  # source rows from one row to the next
    assert 1 / 1.31 < float(steps.min()) <= float(steps.max()) < (1.31 if crop else 1.001)
    assert float(steps.max() - steps.min()) < 1e-3
    nearest = (found.before[:2] + 0.5).floor().long().clamp(max=side - 1)
    expected = label[nearest[0], nearest[1]]
    assert (found.label == expected)[1:-1, 1:-1].float().mean() > 0.98  # but where a pixel is half of either


def test_zooms_go_in_and_out_alike() -> None:
    side = 64
    ramp = torch.arange(side).float().expand(3, side, side)
    sample = Sample(
        before=ramp,
        after=ramp,
        valid=torch.ones(2, side, side, dtype=torch.bool),
        label=torch.zeros(side, side, dtype=torch.uint8),
    )
    augmentation = Augmentation(flips=False, crop=32, scale=0.5, peak=64.0)
    steps = [float(augmentation(sample, seed=seed).before[0, 8].diff()[10]) for seed in range(60)]
    assert min(steps) < 0.75 and max(steps) > 1.35 and any(0.95 < step < 1.05 for step in steps)


def test_dates_change_places_in_half_of_the_samples() -> None:
    source = Squares()
    sample = replace(stored(source, 1), before=torch.full((3, SIDE, SIDE), 9, dtype=torch.uint8))
    results = [Augmentation(flips=False, mixed_dates=True)(sample, seed=seed) for seed in range(200)]
    swapped = [bool((found.after[:, :, 20:] == 9).all()) for found in results]
    assert 70 < sum(swapped) < 130
    for found, is_swapped in zip(results, swapped, strict=True):
        assert torch.equal(found.valid, sample.valid.flip(0) if is_swapped else sample.valid)
        assert torch.equal(found.label, sample.label)
    assert all(torch.equal(Augmentation(flips=False)(sample, seed=n).after, sample.after.float()) for n in range(20))


class Counted(Squares):
    """Counts how often each sample is read from the store."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[int] = Counter()
        self._lock = threading.Lock()

    def read(self, indices: Sequence[int]) -> Stored:
        with self._lock:
            self.reads.update(int(index) for index in indices)
        return super().read(indices)


def test_what_fits_is_read_once_and_the_rest_each_time() -> None:
    source = Counted()
    size = sum(array[0].nbytes for array in (source.before, source.after, source.valid, source.label))
    kept = KeptSamples(source, memory=5 * size + size // 2)
    work = [([n % 8, (n + 1) % 8], [n, n]) for n in range(32)]
    augmentation = Augmentation(crop=32, haze=0.3)
    found = list(prefetched(kept, work, augmentation=augmentation, threads=1))
    plain = list(prefetched(Squares(), work, augmentation=augmentation, threads=3))
    assert all(torch.equal(a.images, b.images) for a, b in zip(found, plain, strict=True))
    assert sorted(source.reads.values()) == [1] * 5 + [8] * 3
    several = kept.read([4, 2, 7])
    assert np.array_equal(several.before, source.before[[4, 2, 7]]) and several.label.shape == (3, SIDE, SIDE)
    assert list(kept.indices("val")) == list(source.indices("val"))


def test_threads_that_read_the_same_samples_agree() -> None:
    kept = KeptSamples(Counted(), memory=1 << 30)
    work = [([n % 4] * 3, [n, n + 1, n + 2]) for n in range(40)]
    found = list(prefetched(kept, work, augmentation=EVERYTHING, threads=4))
    expected = [assemble(Squares(), indices, EVERYTHING, seeds) for indices, seeds in work]
    assert all(torch.equal(a.images, b.images) for a, b in zip(found, expected, strict=True))


def test_what_is_read_is_of_the_stored_type_and_no_larger_than_what_is_shown() -> None:
    crops = read_crops(Squares(), [0, 1], Augmentation(crop=32, haze=0.3), [1, 2])
    assert crops.stack.images.dtype == torch.uint8 and crops.stack.images.shape == (4, 3, 32, 32)
    zoomed = read_crops(Squares(), [0, 1], Augmentation(crop=32, scale=0.25), [1, 2])
    assert zoomed.stack.images.shape == (4, 3, 40, 40)


def test_an_error_of_a_reader_reaches_the_caller_and_ends_all_threads() -> None:
    class Broken(Squares):
        def read(self, indices: Sequence[int]) -> Stored:
            if 5 in indices:
                raise OSError("sample 5 is gone")
            return super().read(indices)

    work = [([n], [n]) for n in range(12)]
    before = threading.active_count()
    seen = []
    with pytest.raises(OSError, match="sample 5 is gone"):
        seen.extend(batch.indices[0] for batch in prefetched(Broken(), work, augmentation=None, threads=2))
    assert seen == [0, 1, 2, 3, 4] and threading.active_count() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_makes_what_the_cpu_makes() -> None:
    work = [([n % 16, (n + 5) % 16], [n, n + 100]) for n in range(24)]
    source, device = Squares(), torch.device("cuda:0")
    torch.use_deterministic_algorithms(True)
    try:
        runs = [
            [
                (batch.images.cpu(), batch.valid.cpu(), batch.labels.cpu())
                for batch in prefetched(source, work, augmentation=EVERYTHING, threads=3, device=device)
            ]
            for _ in range(2)
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    for (indices, seeds), once, again in zip(work, *runs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
        expected = assemble(source, indices, EVERYTHING, seeds)
        close: Tensor = (once[0] - expected.images).abs() < 0.05
        assert close.float().mean() > 0.999 and (once[1] == expected.valid).float().mean() > 0.999


def test_a_shard_comes_together_and_once_whatever_the_threads() -> None:
    source = Counted()
    kept = KeptSamples(source, memory=1 << 30, shard=4)
    train = [int(index) for index in source.indices("train")]
    work = [([train[n % len(train)], train[-1 - n % len(train)]], [n, n]) for n in range(24)]
    found = list(prefetched(kept, work, augmentation=EVERYTHING, threads=4))
    expected = [assemble(Squares(), indices, EVERYTHING, seeds) for indices, seeds in work]
    assert all(torch.equal(a.images, b.images) for a, b in zip(found, expected, strict=True))
    first, *others = (source.reads[index] for index in train)
    assert first <= 2 and others == [1] * len(others)  # the first also tells how large a sample is


def test_a_shard_that_does_not_fit_is_read_sample_by_sample() -> None:
    source = Counted()
    size = sum(array[0].nbytes for array in (source.before, source.after, source.valid, source.label))
    kept = KeptSamples(source, memory=3 * size, shard=4)
    train = [int(index) for index in source.indices("train")]
    for index in train * 2:
        assert np.array_equal(kept.read([index]).before, source.before[[index]])
    assert [source.reads[index] for index in train[1:5]] == [1, 1, 2, 2]

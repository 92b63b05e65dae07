"""Synthetic scenes: the same pixels however they are cut, the promised truth, files that rasterio agrees with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from storage.errors import InputError
from storage.synthetic.noise import LatticeNoise, Sun, uniform
from storage.synthetic.pair import synthesize
from storage.synthetic.scene import CELL, PseudoChange, Scene, Window
from tiling.conventions import IGNORED

# No difference but the truth's: the same sun, no season, no sensor.
STILL = PseudoChange(
    season=0,
    haze=0,
    before=Sun(azimuth=150, elevation=50),
    after=Sun(azimuth=150, elevation=50),
    shift_x=0,
    shift_y=0,
    gain=(1, 1, 1),
    offset=(0, 0, 0),
    noise=0,
)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(seed=3)


@pytest.fixture(scope="module")
def whole(scene: Scene) -> Window:
    return scene.pair(slice(0, 1024), slice(0, 1024))


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_cut_shows_the_same_pixels(scene: Scene, whole: Window, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, 1000)), data.draw(st.integers(0, 1000))
    rows, cols = slice(top, top + data.draw(st.integers(1, 1024 - top))), slice(left, min(left + 300, 1024))
    rows = slice(rows.start, min(rows.stop, rows.start + 300))
    cut = scene.pair(rows, cols)
    assert np.array_equal(cut.before, whole.before[:, rows, cols])
    assert np.array_equal(cut.after, whole.after[:, rows, cols])
    assert np.array_equal(cut.change, whole.change[rows, cols])


def test_another_instance_draws_the_same_and_another_seed_does_not(whole: Window) -> None:
    part = (slice(300, 700), slice(100, 500))
    again = Scene(seed=3).pair(*part)
    assert np.array_equal(again.before, whole.before[:, *part])
    assert not np.array_equal(Scene(seed=4).pair(*part).before, again.before)


def test_cells_leave_no_seam(whole: Window) -> None:
    """Steps between neighbouring pixels are no larger across the borders of cells than elsewhere."""
    image = whole.before.astype(float).mean(axis=0)
    for axis in (0, 1):
        steps = np.abs(np.diff(image, axis=axis)).mean(axis=1 - axis)
        borders = steps[CELL - 1 :: CELL]
        assert borders.max() < np.quantile(steps, 0.99) * 1.15


def test_without_pseudo_changes_the_images_differ_where_the_truth_says_so() -> None:
    still = Scene(seed=8, pseudo=STILL).pair(slice(0, 1536), slice(0, 1536))
    difference = np.abs(still.after.astype(int) - still.before).max(axis=0)
    changed = still.change == 1
    assert 0.01 < changed.mean() < 0.2
    assert (difference[changed] > 12).mean() > 0.9
    # Beside a change lies its shadow and its verge; far from any, only what moisture does to the soil.
    far = ndimage.distance_transform_edt(~changed) > 60
    assert (difference[far] > 25).mean() < 0.002


def test_pseudo_changes_are_as_strong_as_changes() -> None:
    """Else a threshold on the difference of the images would do, and no network were needed."""
    drawn = [Scene(seed=seed).pair(slice(0, 1024), slice(0, 1024)) for seed in (1, 2)]
    difference = np.stack([np.abs(w.after.astype(int) - w.before).sum(axis=0) for w in drawn])
    changed = np.stack([w.change for w in drawn]) == 1
    scores = []
    for threshold in range(0, 400, 10):
        called = difference >= threshold
        scores.append(2 * (called & changed).sum() / (called.sum() + changed.sum()))
    assert max(scores) < 0.65


def test_share_of_changes_is_four_to_eight_percent() -> None:
    shares = [Scene(seed=seed, pseudo=STILL).pair(slice(0, 2048), slice(0, 2048)).change.mean() for seed in (1, 2)]
    assert min(shares) > 0.02 and max(shares) < 0.12
    assert 0.03 < np.mean(shares) < 0.09


def test_the_later_date_is_shifted_as_asked() -> None:
    """Phase correlation, an independent measure, finds the sub-pixel shift."""
    from skimage.registration import phase_cross_correlation

    shifted = PseudoChange(**{**STILL.__dict__, "shift_x": 0.5, "shift_y": -0.3})
    drawn = Scene(seed=8, pseudo=shifted).pair(slice(0, 512), slice(0, 512))
    found, _, _ = phase_cross_correlation(drawn.after.mean(axis=0), drawn.before.mean(axis=0), upsample_factor=20)
    assert found == pytest.approx((-0.3, 0.5), abs=0.1)


def test_files_hold_the_scene(tmp_path: Path) -> None:
    seen: list[int] = []
    pair = synthesize(tmp_path, height=700, width=900, seed=3, block=512, resolution=0.4, on_progress=seen.append)
    assert sum(seen) == 700 * 900
    drawn = Scene(seed=3).pair(slice(0, 700), slice(0, 900))
    missing = np.zeros((700, 900), dtype=bool)
    for path, image in ((pair.before, drawn.before), (pair.after, drawn.after)):
        with rasterio.open(path) as file:
            assert (file.height, file.width, file.count, file.dtypes[0]) == (700, 900, 3, "uint8")
            assert file.nodata == 0
            assert file.crs.to_epsg() == 32631
            assert file.res == (0.4, 0.4)
            assert file.profile["tiled"]
            valid = file.dataset_mask() > 0
            read = file.read()
        assert 0.9 < valid.mean() < 0.995
        assert np.array_equal(read[:, valid], image[:, valid])
        missing |= ~valid
    with rasterio.open(pair.change) as file:
        truth = file.read(1)
    assert np.array_equal(truth == IGNORED, missing)
    assert np.array_equal(truth[~missing], drawn.change[~missing])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.tif", "before.tif", "change.tif"]


def test_block_size_leaves_no_trace(tmp_path: Path) -> None:
    small = synthesize(tmp_path / "a", height=600, width=530, seed=1, block=256)
    large = synthesize(tmp_path / "b", height=600, width=530, seed=1, block=1024)
    for one, other in ((small.before, large.before), (small.after, large.after), (small.change, large.change)):
        with rasterio.open(one) as a, rasterio.open(other) as b:
            assert np.array_equal(a.read(), b.read())


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"height": 0}, "0 × 64"),
        ({"width": -3}, "-3"),
        ({"resolution": 0.0}, "resolution 0.0"),
        ({"resolution": float("nan")}, "nan"),
        ({"block": 300}, "300"),
        ({"seed": -1}, "-1"),
        ({"crs": "EPSG:4326"}, "not projected"),
        ({"crs": "moon"}, "moon"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(tmp_path: Path, values: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        synthesize(tmp_path / "x", **{"height": 64, "width": 64, **values})  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputError, match="cannot make"):
        synthesize(tmp_path / "x", height=64, width=64)


@pytest.mark.parametrize(
    "values", [{"season": 1.5}, {"shift_x": 0.9}, {"gain": (3, 1, 1)}, {"noise": -1}, {"haze": float("nan")}]
)
def test_pseudo_changes_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        PseudoChange(**values)  # type: ignore[arg-type]


def test_windows_without_pixels_are_refused(scene: Scene) -> None:
    for rows in (slice(5, 5), slice(None, 5), slice(0, 10, 2)):
        with pytest.raises(ValueError, match="rows"):
            scene.pair(rows, slice(0, 5))


def test_hashed_numbers_are_uniform_and_independent_of_company() -> None:
    many = uniform(5, 1, np.arange(-200, 200)[:, None], np.arange(250))
    assert many.shape == (400, 250)
    assert many.min() >= 0 and many.max() < 1
    histogram = np.histogram(many, bins=20, range=(0, 1))[0]
    assert (((histogram - 5000) ** 2) / 5000).sum() < 45  # χ² with 19 degrees of freedom, p = 0.0007
    assert np.corrcoef(many[:, :-1].ravel(), many[:, 1:].ravel())[0, 1] == pytest.approx(0, abs=0.015)
    assert many[200 - 7, 31] == uniform(5, 1, -7, 31)


def test_lattice_noise_at_points_is_the_patch() -> None:
    noise = LatticeNoise(seed=2, stream=9, spacing=37.5)
    patch = noise.patch(row=-20, col=400, size=90)
    rows, cols = np.meshgrid(np.arange(-20, 70), np.arange(400, 490), indexing="ij")
    points = noise.at(rows.ravel().astype(float), cols.ravel().astype(float)).reshape(90, 90)
    assert patch == pytest.approx(points, abs=1e-5)
    assert np.abs(patch).max() <= 1

"""The command line as a user meets it: exit codes, messages, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from flows.cli.direct import unfilled
from flows.cli.main import main
from storage.synthetic.pair import SyntheticPair
from tests.flows.conftest import Dasnet, Finished
from tests.rasters import geotiff


def raster(path: Path, *, pixels: np.ndarray | None = None, **profile: object) -> Path:
    """A small RGB GeoTIFF of 300 × 200 px."""
    return geotiff(path, np.full((3, 200, 300), 90, dtype=np.uint8) if pixels is None else pixels, **profile)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return raster(tmp_path / "good.tif")


def refused(ended: Finished, output: Path, *words: str) -> None:
    assert ended.code == 2, ended.err
    flat = " ".join(ended.err.split())
    for word in words:
        assert word in flat
    assert "Traceback" not in ended.err
    assert not output.exists() or not any(output.iterdir()), "a refusal leaves nothing behind"


def test_dry_run_prints_the_plan_and_writes_nothing(dasnet: Dasnet, pair: SyntheticPair, tmp_path: Path) -> None:
    ended = dasnet("detect", pair.before, pair.after, "--output", tmp_path / "run", "--dry-run")
    assert ended.code == 0, ended.err
    for word in ("900 × 700 px", "EPSG:32631", "blocks", "windows", "by a short calibration"):
        assert word in ended.out
    assert not (tmp_path / "run").exists()


def test_missing_file(dasnet: Dasnet, good: Path, tmp_path: Path) -> None:
    refused(dasnet("detect", good, tmp_path / "nope.tif", "--output", tmp_path / "o"), tmp_path / "o", "nope.tif")


def test_no_overlap_names_both_extents(dasnet: Dasnet, good: Path, tmp_path: Path) -> None:
    far = raster(tmp_path / "far.tif", transform=Affine(1, 0, 900_000, 0, -1, 5_600_000))
    ended = dasnet("detect", good, far, "--output", tmp_path / "o")
    refused(ended, tmp_path / "o", "far.tif", "does not overlap", "900000", "500000")


def test_other_bands_than_the_bundle(dasnet: Dasnet, good: Path, tmp_path: Path) -> None:
    five = raster(tmp_path / "five.tif", pixels=np.full((5, 200, 300), 9, dtype=np.uint8))
    refused(dasnet("detect", five, five, "--output", tmp_path / "o"), tmp_path / "o", "five.tif", "5 bands", "--bands")
    refused(dasnet("detect", good, five, "--output", tmp_path / "o"), tmp_path / "o", "five.tif has 5 bands", "needs 3")


def test_unknown_bundle_lists_the_shipped_ones(dasnet: Dasnet, good: Path, tmp_path: Path) -> None:
    refused(dasnet("detect", good, good, "--output", tmp_path / "o", "--bundle", "nope"), tmp_path / "o", "synthetic")


def test_other_values_than_the_bundle(dasnet: Dasnet, tmp_path: Path) -> None:
    wide = raster(tmp_path / "wide.tif", pixels=np.full((3, 200, 300), 900, dtype=np.uint16))
    refused(dasnet("detect", wide, wide, "--output", tmp_path / "o"), tmp_path / "o", "uint16", "uint8")


def test_region_outside_the_mosaics(dasnet: Dasnet, good: Path, tmp_path: Path) -> None:
    region = tmp_path / "region.geojson"
    square = [[[10, 10], [11, 10], [11, 11], [10, 11], [10, 10]]]
    region.write_text(json.dumps({"type": "Polygon", "coordinates": square}))
    ended = dasnet("detect", good, good, "--output", tmp_path / "o", "--region", region)
    refused(ended, tmp_path / "o", "region.geojson", "outside")


def test_somebody_elses_directory_is_left_alone(dasnet: Dasnet, good: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    (output / "thesis.doc").write_text("years of work")
    ended = dasnet("detect", good, good, "--output", output)
    assert ended.code == 2
    assert "thesis.doc" in ended.err
    assert [entry.name for entry in output.iterdir()] == ["thesis.doc"]


def test_impossible_options(dasnet: Dasnet, good: Path, tmp_path: Path) -> None:
    ended = dasnet("detect", good, good, "--output", tmp_path / "o", "--block", "1000")
    refused(ended, tmp_path / "o", "block", "multiple of 64")
    ended = dasnet("detect", good, good, "--output", tmp_path / "o", "--cluster", "mainframe")
    refused(ended, tmp_path / "o", "cluster.kind")
    ended = dasnet("detect", good, good, "--output", tmp_path / "o", "--bbox", "1,2,three,4")
    refused(ended, tmp_path / "o", "--bbox")


def test_status_of_no_run(dasnet: Dasnet, tmp_path: Path) -> None:
    ended = dasnet("status", tmp_path)
    assert ended.code == 2
    assert "holds no run" in ended.err


def test_a_cuda_cluster_without_a_gpu_is_refused(dasnet: Dasnet, good: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    ended = dasnet("detect", good, good, "--output", tmp_path / "o", "--cluster", "cuda")
    assert ended.code == 2, ended.err
    assert "--cluster cuda" in ended.err
    assert "Traceback" not in ended.err


def test_synthesize_writes_three_rasters_and_says_where(dasnet: Dasnet, tmp_path: Path) -> None:
    ended = dasnet("synthesize", tmp_path / "scene", "--height", "300", "--width", "260", "--seed", "4")
    assert ended.code == 0, ended.err
    for name in ("before.tif", "after.tif", "change.tif"):
        assert str(tmp_path / "scene" / name) in ended.out
        with rasterio.open(tmp_path / "scene" / name) as written:
            assert written.shape == (300, 260)


def test_bundle_shows_card_and_needs(dasnet: Dasnet) -> None:
    ended = dasnet("bundle", "synthetic")
    assert ended.code == 0, ended.err
    for word in ("red, green, blue", "uint8", "256 px", "Trained on", "tf_efficientnet_lite0", "Apache-2.0"):
        assert word in ended.out
    assert dasnet("bundle", "nope").code == 2


def test_a_card_is_broken_where_the_terminal_ends() -> None:
    card = "# name\n\nOne sentence that was\nfilled. Another\none.\n\n| a | b |\n| --- | --- |\n\n- one\n- two\n"
    shown = "# name\n\nOne sentence that was filled. Another one.\n\n| a | b |\n| --- | --- |\n\n- one\n- two\n"
    assert unfilled(card) == shown


def test_the_authors_checkpoint_becomes_a_bundle(dasnet: Dasnet, tmp_path: Path) -> None:
    import torch

    from tests.dasnet.prediction.test_authors import small_authors_state

    checkpoint = tmp_path / "authors.pth"
    torch.save({"state_dict": small_authors_state()}, checkpoint)
    ended = dasnet("import-authors", checkpoint, tmp_path / "authors.safetensors")
    assert ended.code == 0, ended.err
    assert dasnet("bundle", tmp_path / "authors.safetensors").code == 0
    assert dasnet("import-authors", tmp_path / "nope.pth", tmp_path / "b.safetensors").code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("reprocess", "dates.csv", "--output", "s3://maps/archive"),
            "output: s3:/maps/archive is an address; a local directory is wanted (only `dasnet detect`",
        ),
        (
            ("train", "data", "--output", "gs://maps/training"),
            "output: gs:/maps/training is an address; a local directory is wanted",
        ),
        (
            ("reprocess", "https://me:hush@example.org/items.json", "--output", "o"),
            "archive: https://…@example.org/items.json was given with a password, a token or a signature in it",
        ),
        (
            ("detect", "a.tif", "b.tif", "--output", "o", "--block", "100", "--bbox", "1,2,1,3"),
            "grid.bbox: bbox (1.0, 2.0, 1.0, 3.0) must be left, bottom, right, top with left < right and bottom "
            "< top; block: Input should be a multiple of 64",
        ),
    ],
)
def test_what_is_wrong_with_a_field_is_said_once_and_by_its_name(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["dasnet", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    err = " ".join(capsys.readouterr().err.split())
    assert err.startswith(f"refused: {said}")
    assert "Value error" not in err and "hush" not in err
    assert list(tmp_path.iterdir()) == []

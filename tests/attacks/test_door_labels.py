"""What labels mean: refused before anything is computed where they mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pydantic import ValidationError

from flows.cli.info import InfoRequest
from flows.dataset.request import PrepareRequest
from flows.dataset.run import _identity
from flows.detect.request import DetectRequest, PairRequest
from flows.evaluation.request import EvaluateRequest
from flows.evaluation.run import run_evaluation
from flows.run.directory import DifferentRunError, RunDirectory
from storage.datasets.scenes import SceneFiles, open_scene
from storage.errors import InputError
from storage.imagery.description import Overrides
from tests.attacks.door import image, pixels


def drawn(path: Path, west: float, south: float) -> Path:
    ring = [[west, south], [west + 0.01, south], [west + 0.01, south + 0.01], [west, south]]
    polygon = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [polygon]}))
    return path


def test_polygons_with_exchanged_coordinates_are_refused_before_a_run(tmp_path: Path) -> None:
    before, after = (str(image(tmp_path / f"{name}_20{name}0601.tif", pixels())) for name in ("19", "21"))
    label = drawn(tmp_path / "changes.geojson", 50.54, 3.0)
    mosaic = PairRequest.model_validate({"before": before, "after": after})
    request = EvaluateRequest(bundle="synthetic", output=tmp_path / "e", label=label, mosaic=mosaic)
    with pytest.raises(InputError, match=r"no polygon of .*changes\.geojson lies on the mosaic"):
        run_evaluation(request)
    assert not (tmp_path / "e" / "run").exists()


def test_a_scene_knows_that_its_polygons_are_elsewhere(tmp_path: Path) -> None:
    before, after = (str(image(tmp_path / f"{name}.tif", pixels())) for name in ("before", "after"))
    for west, south, is_elsewhere in ((3.005, 50.54, False), (50.54, 3.005, True)):
        label = str(drawn(tmp_path / "a.geojson", west, south))
        scene = open_scene(SceneFiles(name="a", before=before, after=after, label=label))
        assert scene.polygons is not None
        assert scene.polygons.is_elsewhere is is_elsewhere


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"changed": "nan"}, "finite"),
        ({"changed": "1,2", "unchanged": "2"}, "both name 2"),
        ({"changed": "red"}, "--changed takes numbers"),
        ({"shares": "8,1"}, "--shares takes 3 values"),
    ],
)
def test_values_of_labels_that_mean_nothing(settings: dict[str, str], words: str) -> None:
    paths = {"before": "a.tif", "after": "b.tif", "label": "c.tif", "output": "d"}
    with pytest.raises((ValidationError, InputError), match=words):
        PrepareRequest.model_validate({**paths, **settings})


def test_values_of_labels_are_said_to_info_of_labels_alone() -> None:
    assert InfoRequest.model_validate({"paths": "a.tif", "label": True, "changed": "2"}).label_options.changed == (2,)
    with pytest.raises(ValidationError, match="--label"):
        InfoRequest.model_validate({"paths": "a.tif", "changed": "2"})


def test_one_end_of_a_stretch_is_none() -> None:
    with pytest.raises(ValidationError, match="--stretch takes 2 values with commas between them, not '5'"):
        DetectRequest.model_validate({"before": "a.tif", "after": "b.tif", "output": "c", "stretch": "5"})


def test_another_run_of_the_same_files_names_no_file(tmp_path: Path) -> None:
    directory, files = RunDirectory(tmp_path), {"before": {"a.tif": "1" * 64}}
    identity = {"inputs": [{"sha256": "1"}], "parameters": {"stretch": [0, 5]}}
    directory.adopt(identity, versions={}, files=files)
    with pytest.raises(DifferentRunError) as caught:
        directory.refuse_another({**identity, "parameters": {"stretch": [0, 6]}}, files=files)
    assert "stretch" in str(caught.value)
    assert "inputs" not in str(caught.value)


def test_scenes_are_read_as_a_user_says_they_are(tmp_path: Path) -> None:
    values = pixels(4)
    values[3] = 255
    values[3, :20] = 0
    values[:, 50:60] = 7
    before, after = (str(image(tmp_path / f"{name}.tif", values)) for name in ("before", "after"))
    label = str(image(tmp_path / "label.tif", pixels(1) % 2))
    files = SceneFiles(name="a", before=before, after=after, label=label)
    scene = open_scene(files, bands=[3, 1], said=Overrides(nodata=7, alpha=4))
    read, valid = scene.after.read(rows=slice(0, 96), cols=slice(0, 96))
    np.testing.assert_array_equal(valid, (values[3] > 0) & ~(values == 7).all(axis=0))
    np.testing.assert_array_equal(read[:, valid], values[[2, 0]][:, valid])


def test_what_is_guessed_of_scenes_is_said_and_numbers_mean_one_thing(tmp_path: Path) -> None:
    values = pixels()
    values[:, :30] = 0
    before, after = (image(tmp_path / f"{name}.tif", values) for name in ("before", "after"))
    files = SceneFiles(
        name="a", before=str(before), after=str(after), label=str(image(tmp_path / "label.tif", pixels(1) % 2))
    )
    assert "37% of its edge is exactly black" in " ".join(open_scene(files).notes)
    with rasterio.open(after, "r+") as file:
        file.descriptions = ("blue", "green", "red")
    with pytest.raises(InputError, match=r"--bands 1 are red of .*, but blue of"):
        open_scene(files, bands=[1])


def test_a_dataset_is_bound_to_what_is_said_of_its_imagery(tmp_path: Path) -> None:
    for name, options in (("plain", {}), ("said", {"nodata": 7, "values": "stored"})):
        mosaics = {"before": "a.tif", "after": "b.tif", "label": "c.tif", "output": str(tmp_path)}
        request = PrepareRequest.model_validate({**mosaics, **options})
        known = _identity(request, [], {}, repr)
        assert ("said" in known, "values" in known) == (name == "said",) * 2

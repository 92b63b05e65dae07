"""What labels mean: refused before anything is computed where they mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.cli.info import InfoRequest
from flows.dataset.request import PrepareRequest
from flows.detect.request import DetectRequest, PairRequest
from flows.evaluation.request import EvaluateRequest
from flows.evaluation.run import run_evaluation
from flows.run.directory import DifferentRunError, RunDirectory
from storage.datasets.scenes import SceneFiles, open_scene
from storage.errors import InputError
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

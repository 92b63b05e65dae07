"""What Prefect knows of prepare-dataset and compute-class-weights."""

import json
from pathlib import Path

from flows.cluster.config import ClusterConfig
from flows.dataset.flow import compute_class_weights, prepare_dataset
from flows.dataset.request import WeightsRequest
from tests.flows.dataset.test_run import published, request
from tests.flows.flow_runs import flow_run


def test_a_person_sees_stages_tables_pictures_and_how_they_ended(
    prefect_ui: str, workers: ClusterConfig, tmp_path: Path
) -> None:
    published(tmp_path / "in")
    asked = request(tmp_path / "out", workers, source=tmp_path / "in", window=32, shard=16)
    steps = {"find scenes", "digest inputs", "finish"}
    prepared = flow_run(prepare_dataset, asked, tasks={*steps, "survey 1-1 of 1", "cut 1-6 of 6"})
    assert prepared.ending == "Completed"
    assert prepared.artifacts["survey"] == prepared.artifacts["cut"] == 100.0
    splits = [row["split"] for row in json.loads(prepared.artifacts["table-1"])]
    assert splits == ["train", "val", "test", "total"]
    assert "(data:image/png;base64," in prepared.artifacts["contact-sheet"]

    weights = WeightsRequest(dataset=tmp_path / "out", cluster=workers)
    counted = flow_run(compute_class_weights, weights, tasks={"count labels"})
    assert counted.ending == "Completed" and "w1, w2" in counted.artifacts["weights"]
    assert json.loads(counted.artifacts["class-weights"]) == json.loads(prepared.artifacts["table-1"])

    other = asked.model_copy(update={"window": 64})
    assert flow_run(prepare_dataset, other, tasks=set()).ending == "Refused"
    picture = tmp_path / "in/test/B/001.png"
    picture.write_bytes(picture.read_bytes()[:9000])
    torn = request(tmp_path / "torn", workers, source=tmp_path / "in", window=32, shard=16, retries=0)
    assert flow_run(prepare_dataset, torn, tasks=set()).ending == "Incomplete"

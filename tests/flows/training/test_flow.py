"""What Prefect knows of a training."""

import json
from pathlib import Path

from flows.cluster.config import ClusterConfig
from flows.training.flow import train
from tests.flows.flow_runs import flow_run
from tests.flows.training.test_run import request


def test_a_person_sees_steps_epochs_pictures_and_how_it_ended(
    prefect_ui: str, one_rank: ClusterConfig, dataset: Path, tmp_path: Path
) -> None:
    changes = {"width": 4, "epochs": 3, "batch": 4, "rate": 1e-2, "augmentation": {"crop": 64}}
    small = {"recipe": "fc_siam_diff", "changes": changes, "figures": False, "cluster": one_rank}
    asked = request(dataset, tmp_path / "t", **small)
    trained = flow_run(train, asked, tasks={"plan", "train", "bundle", "score test 1-2 of 2"})
    assert trained.ending == "Completed"
    assert trained.artifacts["train"] == trained.artifacts["score-test"] == 100.0
    rows = json.loads(trained.artifacts["epochs"])
    assert len(rows) == 3 and {"loss", "F1", "η", "γ", "threshold"} <= set(rows[0])
    for picture in ("samples", "curves", "reliability"):
        assert "(data:image/png;base64," in trained.artifacts[picture]
    assert "always “no change”" in trained.artifacts["test"] and "Measured" in trained.artifacts["model-card"]

    other = request(dataset, tmp_path / "t", **{**small, "changes": {**changes, "seed": 1}})
    assert flow_run(train, other, tasks=set()).ending == "Refused"

"""What Prefect knows of a comparison."""

import json
from pathlib import Path

from flows.cluster.config import ClusterConfig
from flows.comparison.flow import compare_methods
from tests.flows.comparison.test_run import request
from tests.flows.flow_runs import flow_run


def test_a_person_sees_tables_pictures_and_each_training_as_a_run_of_its_own(
    prefect_ui: str, workers: ClusterConfig, dataset: Path, tmp_path: Path
) -> None:
    changes = {"epochs": 3, "batch": 4, "augmentation": {"crop": 64}, "fc-siam-diff": {"width": 4, "rate": 0.01}}
    asked = request(dataset, tmp_path / "c", workers, methods=("fc-siam-diff", "cva"), seeds=1, changes=changes)
    compared = flow_run(compare_methods, asked, tasks={"plan", "train", "score"})
    assert compared.ending == "Completed" and compared.artifacts["trainings"] == 100.0
    rows = {row["row"]: row for row in json.loads(compared.artifacts["comparison-methods"])}
    written = (tmp_path / "c/tables.md").read_text()
    assert set(rows) == {"fc-siam-diff", "cva"}
    for row in rows.values():
        assert f"| {row['row']} | {row['seeds']} | {row['recall']} | {row['precision']} | {row['F1']} |" in written
    for picture in ("methods-f1", "side-by-side"):
        assert "(data:image/png;base64," in compared.artifacts[picture]
    (training,) = compared.sub_runs
    assert training.startswith("fc-siam-diff-seed0-")

    diverging = {**changes, "fc-siam-diff": {"width": 4, "rate": 1e30}}
    failed = flow_run(compare_methods, asked.model_copy(update={"changes": diverging}), tasks=set())
    assert failed.ending == "Incomplete"

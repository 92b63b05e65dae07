"""What Prefect knows of an evaluation."""

from pathlib import Path

import numpy as np

from flows.cluster.config import ClusterConfig
from flows.detect.request import DetectRequest
from flows.evaluation.flow import evaluate
from flows.evaluation.request import EvaluateRequest
from tests.flows.flow_runs import flow_run
from tests.flows.squares import DATES, squares, write_mosaic


def test_a_person_sees_scores_pictures_and_the_detection_as_a_run_of_its_own(
    prefect_ui: str, workers: ClusterConfig, dataset: Path, tmp_path: Path
) -> None:
    for name, pixels in zip(DATES, squares(np.random.default_rng(5), 300, 420, 12), strict=True):
        write_mosaic(tmp_path / f"{name}.tif", pixels)
    asked = EvaluateRequest(
        bundle="synthetic",
        dataset=dataset,
        output=tmp_path / "e",
        mosaic=DetectRequest(
            before=str(tmp_path / "before.tif"),
            after=str(tmp_path / "after.tif"),
            output=tmp_path / "x",
            block=256,
            cluster=workers,
        ),
        label=tmp_path / "label.tif",
        cluster=workers,
    )
    scored = flow_run(evaluate, asked, tasks={"score test 1-2 of 2", "score mosaic 1-4 of 4"})
    assert scored.ending == "Completed" and scored.sub_runs == {"run"}
    assert "always “no change”" in scored.artifacts["scores"]
    for picture in ("worst", "best", "curves", "reliability"):
        assert "(data:image/png;base64," in scored.artifacts[picture]
    other = asked.model_copy(update={"split": "val"})
    assert flow_run(evaluate, other, tasks=set()).ending == "Refused"

"""What Prefect knows of a calibration."""

from pathlib import Path

from dasnet.prediction.bundle import load_bundle
from flows.calibration.flow import calibrate
from flows.calibration.request import CalibrateRequest
from flows.cluster.config import ClusterConfig
from tests.flows.flow_runs import flow_run


def test_a_person_sees_the_samples_go_by_and_the_reliability(
    prefect_ui: str, workers: ClusterConfig, dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mine.safetensors"
    asked = CalibrateRequest(bundle="synthetic", dataset=dataset, output=output, cluster=workers)
    done = flow_run(calibrate, asked, tasks={"score val 1-1 of 1"})
    assert done.ending == "Completed"
    assert "(data:image/png;base64," in done.artifacts["reliability"]
    assert load_bundle(output).threshold != load_bundle("synthetic").threshold

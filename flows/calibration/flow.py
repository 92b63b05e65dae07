"""`calibrate` as flow run of Prefect."""

from __future__ import annotations

from prefect import flow

from flows.calibration.request import CalibrateRequest
from flows.calibration.run import CalibrationSummary, run_calibration
from flows.run.prefect_observer import observed_flow


@flow(name="calibrate", flow_run_name="{request.output.name}", persist_result=False)
@observed_flow
def calibrate(request: CalibrateRequest) -> CalibrationSummary:
    """A bundle and labelled samples in; the same bundle with a calibration and a threshold fitted to them out."""
    return run_calibration(request)

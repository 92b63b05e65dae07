"""`detect-changes` as flow run of Prefect."""

from __future__ import annotations

from prefect import flow

from flows.detect.request import DetectRequest
from flows.detect.run import Summary, run_detection
from flows.run.prefect_observer import observed_flow


@flow(name="detect-changes", flow_run_name="{request.output.name}", persist_result=False)
@observed_flow
def detect_changes(request: DetectRequest) -> Summary:
    """Two georeferenced mosaics in; one calibrated change-probability mosaic with its products out.

    Run it again with the same request after any interruption: finished blocks are not computed again.
    """
    return run_detection(request)

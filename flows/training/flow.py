"""`train` as flow run of Prefect."""

from __future__ import annotations

from prefect import flow

from flows.run.prefect_observer import observed_flow
from flows.training.request import TrainRequest
from flows.training.run import TrainingSummary, run_training


@flow(name="train", flow_run_name="{request.output.name}", persist_result=False)
@observed_flow
def train(request: TrainRequest) -> TrainingSummary:
    """A dataset in; a calibrated bundle with its card, scores and report out.

    Run it again with the same request after any interruption: training goes on from its last checkpoint.
    """
    return run_training(request)

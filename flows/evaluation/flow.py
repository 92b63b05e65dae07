"""`evaluate` as flow run of Prefect."""

from __future__ import annotations

from prefect import flow

from flows.evaluation.request import EvaluateRequest
from flows.evaluation.run import EvaluationSummary, run_evaluation
from flows.run.prefect_observer import observed_flow


@flow(name="evaluate", flow_run_name="{request.output.name}", persist_result=False)
@observed_flow
def evaluate(request: EvaluateRequest) -> EvaluationSummary:
    """A bundle and labelled imagery in; scores with their uncertainty, curves and the worst cases out.

    The threshold is the bundle's own, frozen on its validation data; nothing is chosen on what is scored here.
    """
    return run_evaluation(request)

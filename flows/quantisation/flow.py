"""`quantise` as flow run of Prefect."""

from __future__ import annotations

from prefect import flow

from flows.quantisation.request import QuantiseRequest
from flows.quantisation.run import QuantisationSummary, run_quantisation
from flows.run.prefect_observer import observed_flow


@flow(name="quantise", flow_run_name="{request.output.name}", persist_result=False)
@observed_flow
def quantise(request: QuantiseRequest) -> QuantisationSummary:
    """A bundle and a dataset in; the same bundle with a graph of integers for CPUs out, if it loses next to nothing."""
    return run_quantisation(request)

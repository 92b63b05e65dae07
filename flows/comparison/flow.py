"""`compare-methods` as flow run of Prefect."""

from __future__ import annotations

from prefect import flow

from flows.comparison.request import CompareRequest
from flows.comparison.run import ComparisonSummary, run_comparison
from flows.run.prefect_observer import observed_flow


@flow(name="compare-methods", flow_run_name="{request.output.name}", persist_result=False)
@observed_flow
def compare_methods(request: CompareRequest) -> ComparisonSummary:
    """A dataset in; tables, curves and pictures of methods on it out, means and spreads over seeds.

    Run it again after any interruption, or with more methods, tables or seeds: what is trained is kept.

    Raises:
        FailedMethodsError: some of them failed; tables and report of the others are written.
    """
    return run_comparison(request)

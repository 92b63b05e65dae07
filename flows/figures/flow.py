"""`figures` as flow run of Prefect."""

from __future__ import annotations

from prefect import flow

from flows.figures.request import FiguresRequest
from flows.figures.run import FiguresSummary, draw_figures
from flows.run.prefect_observer import observed_flow


@flow(name="figures", flow_run_name="{request.output.name}", persist_result=False)
@observed_flow
def figures(request: FiguresRequest) -> FiguresSummary:
    """A trained network in; distance maps, t-SNE, Grad-CAM, attention and η, γ by epoch out, PNG and one page."""
    return draw_figures(request)

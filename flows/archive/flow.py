"""`reprocess-archive` as flow run of Prefect."""

from __future__ import annotations

from prefect import flow

from flows.archive.request import ReprocessRequest
from flows.archive.run import ArchiveSummary, run_reprocessing
from flows.run.prefect_observer import observed_flow


@flow(name="reprocess-archive", flow_run_name="{request.output.name}", persist_result=False)
@observed_flow
def reprocess_archive(request: ReprocessRequest) -> ArchiveSummary:
    """Every pair of dates of an archive, and only what is new since the last time.

    Run it again whenever there may be a new date: what is finished is not computed again, cell by cell.
    """
    return run_reprocessing(request)

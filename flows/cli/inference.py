"""`dasnet detect | reprocess`: planned here, so that what cannot work is refused before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flows.archive.request import ReprocessRequest
from flows.cli.terminal import print_pairs, print_warning, run_job
from flows.detect.request import DetectRequest
from flows.inference.planned import PlannedSeries
from flows.run.planning import planning

J = TypeVar("J", bound=PlannedSeries)

_KEPT = "finished blocks are kept"


def detect(request: DetectRequest, *, dry_run: bool, ui: bool) -> None:
    """Detect changes between two mosaics."""
    from flows.detect.job import resolve

    with planning(request):
        job = resolve(request)
    if dry_run:
        _print_plan(job, lambda job: job.describe())
        return
    result = run_job(
        request,
        request.output,
        job="flows.detect.run:run_detection",
        flow="flows.detect.flow:detect_changes",
        kept=_KEPT,
        ui=ui,
        plan=job,
    )
    print_pairs(result.lines())


def reprocess(request: ReprocessRequest, *, dry_run: bool, ui: bool) -> None:
    """Bring the pairs of an archive up to date."""
    from flows.archive.directory import ArchiveDirectory
    from flows.archive.job import resolve_archive
    from flows.archive.work import work_of

    with planning(request):
        job = resolve_archive(request)
        directory = ArchiveDirectory(job)
        work_of(job, directory).require_disk()
    if dry_run:
        _print_plan(job, lambda job: work_of(job, directory).describe())
        return
    result = run_job(
        request,
        request.output,
        job="flows.archive.run:run_reprocessing",
        flow="flows.archive.flow:reprocess_archive",
        kept=_KEPT,
        ui=ui,
        plan=job,
    )
    print_pairs(result.lines())


def _print_plan(job: J, describe: Callable[[J], list[tuple[str, str]]]) -> None:
    """Print what is planned, then how long it would take, which takes a while to find out."""
    with planning(job.request):
        plan = describe(job)
    print_pairs(plan)
    for warning in job.warnings:
        print_warning(warning)
    from flows.inference.estimate import timed

    with planning(job.request):
        timed_plan = describe(timed(job))
    print_pairs([line for line in timed_plan if line not in plan])

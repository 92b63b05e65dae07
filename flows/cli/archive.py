"""``dasnet reprocess``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import computing_options, grid_options, with_options
from flows.cli.terminal import print_pairs, run_job, stderr


@with_options(where=grid_options, how=computing_options)
def reprocess(
    archive: Annotated[
        list[str],
        typer.Argument(
            help="STAC catalogue or items (.json, also a URL), table (.csv), folder, pattern, or rasters; local or s3://…."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Archive directory: new, or of the same archive, which then goes on.")],
    bundle: Annotated[str, typer.Option(help="Model: name of a shipped bundle, or a path.")] = "synthetic",
    pairing: Annotated[str, typer.Option(help="consecutive | baseline:YYYY-MM-DD | same-season")] = "consecutive",
    start: Annotated[str | None, typer.Option(help="First day wanted (YYYY-MM-DD).")] = None,
    end: Annotated[str | None, typer.Option(help="Last day wanted (YYYY-MM-DD).")] = None,
    asset: Annotated[
        str | None, typer.Option(help="Key of the STAC asset with the imagery, or red,green,blue.")
    ] = None,
    *,
    where: dict[str, Any],
    cell: Annotated[int, typer.Option(help="Side in pixels of a part that is a run of its own.")] = 102_400,
    how: dict[str, Any],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop.")] = False,
) -> None:
    """Every pair of dates of an archive, and only what is new since the last time."""
    from flows.archive.request import ReprocessRequest

    request = ReprocessRequest.model_validate(
        {
            "archive": archive[0] if len(archive) == 1 else archive,
            "output": output,
            "bundle": bundle,
            "pairing": pairing,
            "start": start,
            "end": end,
            "asset": asset,
            **where,
            "cell": cell,
            **how,
        }
    )
    from flows.archive.directory import ArchiveDirectory
    from flows.archive.job import resolve_archive
    from flows.archive.work import work_of

    job = resolve_archive(request)
    directory = ArchiveDirectory(job)
    work_of(job, directory).require_disk()
    if dry_run:
        from flows.inference.estimate import timed

        print_pairs(work_of(timed(job), directory).describe())
        for warning in job.warnings:
            stderr.print(f"[yellow]warning[/yellow]: {warning}", soft_wrap=True)
        return

    result = run_job(
        request,
        request.output,
        job="flows.archive.run:run_reprocessing",
        flow="flows.archive.flow:reprocess_archive",
        kept="finished blocks are kept",
        plan=job,
    )
    print_pairs(result.lines())

"""``dasnet reprocess``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.terminal import numbers, print_pairs, run_flow, stderr


def reprocess(
    archive: Annotated[
        list[str],
        typer.Argument(help="STAC catalogue or items (.json, file or URL), table (.csv), folder, pattern, or rasters."),
    ],
    output: Annotated[Path, typer.Option(help="Archive directory: new, or of the same archive, which then goes on.")],
    bundle: Annotated[str, typer.Option(help="Model: name of a shipped bundle, or a path.")] = "synthetic",
    pairing: Annotated[str, typer.Option(help="consecutive | baseline:YYYY-MM-DD | same-season")] = "consecutive",
    start: Annotated[str | None, typer.Option(help="First day wanted (YYYY-MM-DD).")] = None,
    end: Annotated[str | None, typer.Option(help="Last day wanted (YYYY-MM-DD).")] = None,
    asset: Annotated[
        str | None, typer.Option(help="Key of the STAC asset with the imagery, or red,green,blue.")
    ] = None,
    bands: Annotated[str | None, typer.Option(help="Band numbers for the bundle's bands, for example 4,1,2.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of the result; default: the first date's.")] = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel size of the result, in units of its CRS.")] = None,
    bbox: Annotated[str | None, typer.Option(help="left,bottom,right,top of the result.")] = None,
    region: Annotated[Path | None, typer.Option(help="GeoJSON polygons; outside them the result is nodata.")] = None,
    resampling: Annotated[
        str, typer.Option(help="nearest | bilinear | cubic | average, where grids differ.")
    ] = "bilinear",
    cell: Annotated[int, typer.Option(help="Side in pixels of a part that is a run of its own.")] = 102_400,
    cluster: Annotated[str, typer.Option(help="local | cuda | tcp://host:port | tls://host:port")] = "local",
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    lanes: Annotated[int | None, typer.Option(help="Blocks that compute at a time in one worker.")] = None,
    precision: Annotated[str, typer.Option(help="auto | float32 | bfloat16")] = "auto",
    block: Annotated[int, typer.Option(help="Side of a block, in pixels.")] = 2048,
    window: Annotated[int | None, typer.Option(help="Side of a window, in pixels; default: the bundle's.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels that windows share; default: a quarter window.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows in one forward pass on a GPU.")] = None,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the network.")] = False,
    min_area: Annotated[float, typer.Option(help="Smallest change polygon, in square metres.")] = 0.0,
    retries: Annotated[int, typer.Option(help="Further attempts at a block that failed.")] = 2,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take up quarantined blocks.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop.")] = False,
) -> None:
    """Every pair of dates of an archive, and only what is new since the last time."""
    from flows.archive_config import ReprocessRequest

    request = ReprocessRequest.model_validate(
        {
            "archive": archive[0] if len(archive) == 1 else archive,
            "output": output,
            "bundle": bundle,
            "pairing": pairing,
            "start": start,
            "end": end,
            "asset": asset,
            "bands": numbers(bands, "--bands", int),
            "grid": {"crs": crs, "resolution": resolution, "bbox": numbers(bbox, "--bbox", float), "region": region},
            "resampling": resampling,
            "cell": cell,
            "cluster": {"kind": cluster, "workers": workers, "lanes": lanes},
            "precision": precision,
            "block": block,
            "window": window,
            "overlap": overlap,
            "batch": batch,
            "compile": compile,
            "min_area": min_area,
            "retries": retries,
            "retry_failed": retry_failed,
        }
    )
    from flows.archive_job import resolve_archive
    from flows.archive_work import work_of

    job = resolve_archive(request)
    work_of(job).require_disk()
    if dry_run:
        from flows.calibrate import calibrated

        print_pairs(work_of(calibrated(job)).describe())
        for warning in job.warnings:
            stderr.print(f"[yellow]warning[/yellow]: {warning}", soft_wrap=True)
        return

    def flow() -> Any:
        from flows.reprocess import reprocess_archive

        return reprocess_archive(request)

    print_pairs(run_flow(request.output, flow, kept="finished blocks are kept").lines())

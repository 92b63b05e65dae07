"""`dasnet …`: the flows as commands. Exit code 0 = done, 1 = blocks failed, 2 = refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table

from flows.cli_archive import reprocess
from flows.cli_bench import compare, figures
from flows.cli_cluster import CertificatesOption, ClusterOption, ClusterSetOption, certs, cluster_of
from flows.cli_server import deploy, server
from flows.cli_training import add_training_commands
from flows.terminal import (
    EXIT_FAILED_BLOCKS,
    EXIT_REFUSED,
    Terminal,
    numbers,
    print_pairs,
    run_flow,
    stderr,
    stdout,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Change detection over region-wide mosaics: plan, run, resume and inspect.",
)
add_training_commands(app)
app.command()(reprocess)
app.command()(server)
app.command()(deploy)
app.command()(certs)
app.command()(compare)
app.command()(figures)


def main() -> None:
    """Entry point: run a command, turn domain errors into one message and an exit code."""
    try:
        app()
    except Exception as error:
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    from flows.errors import REFUSALS, STORAGE_GAVE_OUT, UNFINISHED

    if isinstance(error, ValidationError):
        lines = [f"{'.'.join(map(str, e['loc'])) or 'request'}: {e['msg']}" for e in error.errors()]
        stderr.print("[red]refused[/red]: " + "; ".join(lines), soft_wrap=True)
        return EXIT_REFUSED
    if isinstance(error, REFUSALS):
        stderr.print("[red]refused[/red]: ", end="")
        stderr.print(str(error), markup=False, soft_wrap=True)
        return EXIT_REFUSED
    if isinstance(error, UNFINISHED):
        stderr.print("[red]not finished[/red]: ", end="")
        stderr.print(str(error), markup=False, soft_wrap=True)
        return EXIT_FAILED_BLOCKS
    if isinstance(error, OSError) and error.errno in STORAGE_GAVE_OUT:
        stderr.print("[red]not finished[/red]: ", end="")
        where = f": {error.filename}" if error.filename else ""
        stderr.print(
            f"{error.strerror}{where}. What is finished is kept: mend it and run the same command again",
            markup=False,
            soft_wrap=True,
        )
        return EXIT_FAILED_BLOCKS
    raise error


@app.command()
def detect(
    before: Annotated[str, typer.Argument(help="Mosaic of the first date: file, URL, folder, glob, .txt list, Zarr.")],
    after: Annotated[str, typer.Argument(help="Mosaic of the second date.")],
    output: Annotated[
        str, typer.Option(help="Run directory, local or s3://…: new, or of the same run, which then goes on.")
    ],
    bundle: Annotated[
        str,
        typer.Option(
            help="Model: name of a shipped bundle, or a path; or a method without training: cva, pca-kmeans, irmad, "
            "sfa, isfa."
        ),
    ] = "synthetic",
    bands: Annotated[str | None, typer.Option(help="Band numbers for the bundle's bands, for example 4,1,2.")] = None,
    threshold: Annotated[
        str | None, typer.Option(help="Of a method without training: otsu, or chi2 (irmad, sfa, isfa).")
    ] = None,
    before_date: Annotated[str | None, typer.Option(help="Date of the first mosaic (ISO 8601).")] = None,
    after_date: Annotated[str | None, typer.Option(help="Date of the second mosaic (ISO 8601).")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of the result; default: the first mosaic's.")] = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel size of the result, in units of its CRS.")] = None,
    bbox: Annotated[str | None, typer.Option(help="left,bottom,right,top of the result.")] = None,
    region: Annotated[Path | None, typer.Option(help="GeoJSON polygons; outside them the result is nodata.")] = None,
    resampling: Annotated[
        str, typer.Option(help="nearest | bilinear | cubic | average, where grids differ.")
    ] = "bilinear",
    cluster: ClusterOption = "local",
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    lanes: Annotated[int | None, typer.Option(help="Blocks that compute at a time in one worker.")] = None,
    certificates: CertificatesOption = None,
    cluster_set: ClusterSetOption = None,
    precision: Annotated[str, typer.Option(help="auto | float32 | bfloat16")] = "auto",
    block: Annotated[int, typer.Option(help="Side of a block, in pixels.")] = 2048,
    window: Annotated[int | None, typer.Option(help="Side of a window, in pixels; default: the bundle's.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels that windows share; default: a quarter window.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows in one forward pass on a GPU.")] = None,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the network.")] = False,
    min_area: Annotated[float, typer.Option(help="Smallest change polygon, in square metres.")] = 0.0,
    retries: Annotated[int, typer.Option(help="Further attempts at a block that failed.")] = 2,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take up quarantined blocks.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Two georeferenced mosaics in, one calibrated change-probability mosaic with its products out."""
    from flows.config import DetectRequest

    request = DetectRequest.model_validate(
        {
            "before": before,
            "after": after,
            "output": output,
            "bundle": bundle,
            "bands": numbers(bands, "--bands", int),
            "threshold": threshold,
            "before_date": before_date,
            "after_date": after_date,
            "grid": {"crs": crs, "resolution": resolution, "bbox": numbers(bbox, "--bbox", float), "region": region},
            "resampling": resampling,
            "cluster": cluster_of(
                cluster, workers=workers, lanes=lanes, certificates=certificates, settings=cluster_set
            ),
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
    from flows.job import resolve

    job = resolve(request)
    if dry_run:
        from flows.calibrate import calibrated

        print_pairs(calibrated(job).describe())
        for warning in job.warnings:
            stderr.print(f"[yellow]warning[/yellow]: {warning}", soft_wrap=True)
        return

    def flow() -> Any:
        from flows.detect import detect_changes

        return detect_changes(request)

    print_pairs(run_flow(request.output, flow, kept="finished blocks are kept").lines())


@app.command()
def status(
    directory: Annotated[str, typer.Argument(help="Directory of a run, archive, dataset, training or evaluation.")],
) -> None:
    """Show how far a run, an archive, a dataset, a training or an evaluation has come, without running it."""
    from flows.status import directory_status
    from storage.objects import location

    state = directory_status(location(directory))
    print_pairs(state.lines())
    if state.failed:
        table = Table("block", "error", title="quarantined")
        for name, error in state.failed.items():
            table.add_row(name, error)
        stdout.print(table)
    raise typer.Exit(EXIT_FAILED_BLOCKS if state.failed else 0)


@app.command()
def synthesize(
    directory: Annotated[Path, typer.Argument(help="Folder for before.tif, after.tif and change.tif.")],
    height: Annotated[int, typer.Option(min=1, help="Rows.")] = 2048,
    width: Annotated[int, typer.Option(min=1, help="Columns.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another landscape.")] = 0,
) -> None:
    """Make a bitemporal pair of mosaics with known changes and known pseudo-changes, at any size."""
    from storage.synthesize import synthesize as make

    reporter = Terminal()
    with reporter as terminal:
        terminal.begin("scene", height * width, unit="px")
        pair = make(directory, height=height, width=width, seed=seed, on_progress=terminal.advance)
        terminal.end(f"{width:,} × {height:,} px, seed {seed}")
    print_pairs([("before", str(pair.before)), ("after", str(pair.after)), ("truth", str(pair.change))])


@app.command("bundle")
def show_bundle(
    bundle: Annotated[str, typer.Argument(help="Name of a shipped bundle or of a method without training, or a path.")],
) -> None:
    """Show what a model bundle is: its card and what it needs."""
    from dasnet.baselines.methods import METHODS
    from dasnet.bundle import load_bundle
    from flows.method import method_card

    if bundle in METHODS:
        stdout.print(method_card(METHODS[bundle]), markup=False, highlight=False)
        return
    loaded = load_bundle(bundle)
    print_pairs(
        [
            ("bands", ", ".join(band.name for band in loaded.bands)),
            ("values", loaded.dtype),
            ("window", f"{loaded.window} px"),
            ("threshold", f"{loaded.threshold:.3f}"),
            ("sha256", loaded.digest),
            ("network", json.dumps(loaded.architecture.to_dict())),
        ]
    )
    stdout.print(loaded.card, markup=False)


@app.command("import-authors")
def import_authors(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' released .pth file.")],
    output: Annotated[Path, typer.Argument(help="The bundle to write (.safetensors).")],
) -> None:
    """Turn a checkpoint of the DASNet authors into a bundle."""
    from dasnet.authors import import_checkpoint

    print_pairs([("bundle", str(import_checkpoint(checkpoint, output)))])

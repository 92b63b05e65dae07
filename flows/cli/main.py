"""`dasnet …`: the flows as commands. Exit code 0 = done, 1 = not finished, 2 = refused, 130 = stopped."""

from __future__ import annotations

import json
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table

from flows.cli.archive import reprocess
from flows.cli.certs import certs
from flows.cli.compare import compare, figures
from flows.cli.options import computing_options, grid_options, with_options
from flows.cli.server import deploy, server
from flows.cli.terminal import EXIT_REFUSED, EXIT_UNFINISHED, print_pairs, run_job, stderr, stdout
from flows.cli.training import add_training_commands

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
    from flows.run.errors import REFUSALS, STORAGE_GAVE_OUT, UNFINISHED

    if isinstance(error, ValidationError):
        stderr.print("[red]refused[/red]: ", end="")
        stderr.print("; ".join(_wrong_fields(error)), markup=False, soft_wrap=True)
        return EXIT_REFUSED
    if isinstance(error, REFUSALS):
        stderr.print("[red]refused[/red]: ", end="")
        stderr.print(str(error), markup=False, soft_wrap=True)
        return EXIT_REFUSED
    if isinstance(error, UNFINISHED):
        stderr.print("[red]not finished[/red]: ", end="")
        stderr.print(str(error), markup=False, soft_wrap=True)
        return EXIT_UNFINISHED
    if isinstance(error, OSError) and error.errno in STORAGE_GAVE_OUT:
        stderr.print("[red]not finished[/red]: ", end="")
        where = f": {error.filename}" if error.filename else ""
        stderr.print(
            f"{error.strerror}{where}. What is finished is kept: mend it and run the same command again",
            markup=False,
            soft_wrap=True,
        )
        return EXIT_UNFINISHED
    raise error


def _wrong_fields(error: ValidationError) -> list[str]:
    """What is wrong with each field, in our own words where there are any: pydantic tries all its types."""
    found: dict[str, list[tuple[bool, str]]] = {}
    for wrong in error.errors():
        # parts of a name that are no field's say which type was tried
        parts = [str(part) for part in wrong["loc"] if not re.search(r"[^A-Za-z0-9_]", str(part))]
        said = (wrong["type"] == "value_error", str(wrong["msg"]).removeprefix("Value error, "))
        found.setdefault(".".join(parts) or "request", []).append(said)
    return [
        f"{field}: {text}"
        for field, said in found.items()
        for ours, text in dict.fromkeys(said)
        if ours or not any(other for other, _ in said)
    ]


@app.command()
@with_options(where=grid_options, how=computing_options)
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
    threshold: Annotated[
        str | None, typer.Option(help="Of a method without training: otsu, or chi2 (irmad, sfa, isfa).")
    ] = None,
    before_date: Annotated[str | None, typer.Option(help="Date of the first mosaic (ISO 8601).")] = None,
    after_date: Annotated[str | None, typer.Option(help="Date of the second mosaic (ISO 8601).")] = None,
    *,
    where: dict[str, Any],
    how: dict[str, Any],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Two georeferenced mosaics in, one calibrated change-probability mosaic with its products out."""
    from flows.detect.request import DetectRequest

    request = DetectRequest.model_validate(
        {
            "before": before,
            "after": after,
            "output": output,
            "bundle": bundle,
            "threshold": threshold,
            "before_date": before_date,
            "after_date": after_date,
            **where,
            **how,
        }
    )
    from flows.detect.job import resolve

    job = resolve(request)
    if dry_run:
        from flows.inference.estimate import timed

        print_pairs(timed(job).describe())
        for warning in job.warnings:
            stderr.print(f"[yellow]warning[/yellow]: {warning}", soft_wrap=True)
        return

    result = run_job(
        request,
        request.output,
        job="flows.detect.run:run_detection",
        flow="flows.detect.flow:detect_changes",
        kept="finished blocks are kept",
        plan=job,
    )
    print_pairs(result.lines())


@app.command()
def status(
    directory: Annotated[str, typer.Argument(help="Directory of a run, archive, dataset, training or evaluation.")],
) -> None:
    """Show how far a run, an archive, a dataset, a training or an evaluation has come, without running it."""
    from flows.status import directory_status
    from storage.places.bucket import location

    state = directory_status(location(directory))
    print_pairs(state.lines())
    if state.failed:
        table = Table("block", "error", title="quarantined")
        for name, error in state.failed.items():
            table.add_row(name, error)
        stdout.print(table)
    raise typer.Exit(EXIT_UNFINISHED if state.failed else 0)


@app.command()
def synthesize(
    directory: Annotated[Path, typer.Argument(help="Folder for before.tif, after.tif and change.tif.")],
    height: Annotated[int, typer.Option(min=1, help="Rows.")] = 2048,
    width: Annotated[int, typer.Option(min=1, help="Columns.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another landscape.")] = 0,
) -> None:
    """Make a bitemporal pair of mosaics with known changes and known pseudo-changes, at any size."""
    from flows.run.terminal import TerminalObserver
    from storage.synthetic.pair import synthesize as make

    with closing(TerminalObserver(stderr)) as reporter:
        reporter.begin("scene", height * width, unit="px")
        pair = make(directory, height=height, width=width, seed=seed, on_progress=reporter.advance)
        reporter.end(f"{width:,} × {height:,} px, seed {seed}")
    print_pairs([("before", str(pair.before)), ("after", str(pair.after)), ("truth", str(pair.change))])


@app.command("bundle")
def show_bundle(
    bundle: Annotated[str, typer.Argument(help="Name of a shipped bundle or of a method without training, or a path.")],
) -> None:
    """Show what a model bundle is: its card and what it needs."""
    from dasnet.baselines.methods import UNTRAINED
    from dasnet.prediction.bundle import load_bundle
    from flows.inference.untrained_model import untrained_card

    if bundle in UNTRAINED:
        stdout.print(untrained_card(UNTRAINED[bundle]), markup=False, highlight=False)
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
    from dasnet.prediction.authors import import_checkpoint

    print_pairs([("bundle", str(import_checkpoint(checkpoint, output)))])

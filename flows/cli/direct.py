"""`dasnet status | bundle | import-authors | synthesize`: what needs no job and no cluster."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

from pydantic import Field

from flows.cli.terminal import EXIT_UNFINISHED, print_pairs, stderr, stdout
from flows.run.fields import POSITIONAL, Frozen


class StatusRequest(Frozen):
    """What to look at."""

    directory: Annotated[
        str, POSITIONAL, Field(description="Directory of a run, archive, dataset, training or evaluation.")
    ]


def status(request: StatusRequest) -> None:
    """Print the state of a directory of ours; exit code 1 if some of it is quarantined."""
    from flows.cli.status import directory_status
    from storage.places.bucket import location

    state = directory_status(location(request.directory))
    print_pairs(state.lines())
    if state.failed:
        from rich.table import Table

        table = Table("block", "error", title="quarantined")
        for name, error in state.failed.items():
            table.add_row(name, error)
        stdout.print(table)
        sys.exit(EXIT_UNFINISHED)


class SynthesizeRequest(Frozen):
    """How large a scene to make, and where."""

    directory: Annotated[Path, POSITIONAL, Field(description="Folder for before.tif, after.tif and change.tif.")]
    height: Annotated[int, Field(ge=1, description="Rows.")] = 2048
    width: Annotated[int, Field(ge=1, description="Columns.")] = 2048
    seed: Annotated[int, Field(ge=0, description="Another seed, another landscape.")] = 0


def synthesize(request: SynthesizeRequest) -> None:
    """Make a pair of mosaics and print where they are."""
    from flows.run.terminal import TerminalObserver
    from storage.synthetic.pair import synthesize as make

    height, width = request.height, request.width
    with closing(TerminalObserver(stderr)) as observer:
        observer.begin("scene", height * width, unit="px")
        pair = make(request.directory, height=height, width=width, seed=request.seed, on_progress=observer.advance)
        observer.end(f"{width:,} × {height:,} px, seed {request.seed}")
    print_pairs([("before", str(pair.before)), ("after", str(pair.after)), ("truth", str(pair.change))])


class BundleRequest(Frozen):
    """Which model to show."""

    bundle: Annotated[
        str,
        POSITIONAL,
        Field(description="Name of a shipped bundle or of a method without training, or a path."),
    ]


def show_bundle(request: BundleRequest) -> None:
    """Print a bundle's card and what it needs of images."""
    from dasnet.baselines.methods import WITHOUT_TRAINING
    from dasnet.prediction.bundle import load_bundle
    from flows.inference.untrained_model import untrained_card

    if request.bundle in WITHOUT_TRAINING:
        stdout.print(untrained_card(WITHOUT_TRAINING[request.bundle]), markup=False, highlight=False)
        return
    bundle = load_bundle(request.bundle)
    print_pairs(
        [
            ("bands", ", ".join(band.name for band in bundle.bands)),
            ("values", bundle.dtype),
            ("window", f"{bundle.window} px"),
            ("threshold", f"{bundle.threshold:.3f}"),
            ("sha256", bundle.digest),
            ("network", json.dumps(bundle.architecture.to_dict())),
            *([] if bundle.quantised is None else [("int8", json.dumps(bundle.quantised.to_dict()))]),
        ]
    )
    stdout.print(unfilled(bundle.card), markup=False)


class ImportRequest(Frozen):
    """A checkpoint, and the bundle to make of it."""

    checkpoint: Annotated[Path, POSITIONAL, Field(description="The authors' released .pth file.")]
    output: Annotated[Path, POSITIONAL, Field(description="The bundle to write (.safetensors).")]


def import_authors(request: ImportRequest) -> None:
    """Write the bundle and print where it is."""
    from dasnet.prediction.authors import import_checkpoint

    print_pairs([("bundle", str(import_checkpoint(request.checkpoint, request.output)))])


def unfilled(text: str) -> str:
    """Markdown with each paragraph on one line, for a terminal to break where it ends; tables and headings stay."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.lstrip().startswith(("|", "#", "-", "```")) else " ".join(paragraph.splitlines())
        for paragraph in paragraphs
    )

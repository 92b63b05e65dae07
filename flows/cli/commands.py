"""All commands: what each is for, which request it takes, what is done with it. A call imports it, help does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        request: ``module:class`` of what it asks.
        run: what is called with the request and the flags, or ``module:function`` of it.
        flags: what it takes beside the request, of :data:`flows.cli.options.FLAGS`.
    """

    help: str
    request: str
    run: str | Callable[..., None]
    flags: tuple[str, ...] = ()


def imported(path: str) -> Any:
    """What ``module:name`` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _job(help: str, request: str, *, job: str, flow: str, kept: str) -> Command:
    """A command that does a job, as a flow run where there is a Prefect API."""
    return Command(help=help, request=request, flags=("ui",), run=partial(_do, job=job, flow=flow, kept=kept))


def _do(request: Any, *, ui: bool, job: str, flow: str, kept: str) -> None:
    from flows.cli.terminal import print_pairs, run_job

    # class weights are kept in the dataset itself
    directory = request.output if hasattr(request, "output") else request.dataset
    directory = getattr(request, "directory", directory)  # a calibration's output is a file
    print_pairs(run_job(request, directory, job=job, flow=flow, kept=kept, ui=ui).lines())


SECTIONS: dict[str, dict[str, Command]] = {
    "Detect change": {
        "detect": Command(
            help="Two georeferenced mosaics in, one calibrated change-probability mosaic with its products out.",
            request="flows.detect.request:DetectRequest",
            run="flows.cli.inference:detect",
            flags=("dry_run", "ui"),
        ),
        "reprocess": Command(
            help="Every pair of dates of an archive, and only what is new since the last time.",
            request="flows.archive.request:ReprocessRequest",
            run="flows.cli.inference:reprocess",
            flags=("dry_run", "ui"),
        ),
        "info": Command(
            help="What imagery and archives are, as every command reads them: bands, values, grid, date, doubts.",
            request="flows.cli.info:InfoRequest",
            run="flows.cli.info:info",
        ),
        "status": Command(
            help="Show how far a run, an archive, a dataset, a training or an evaluation has come, without running it.",
            request="flows.cli.direct:StatusRequest",
            run="flows.cli.direct:status",
        ),
    },
    "Make a model": {
        "prepare": _job(
            "Labelled imagery in, one dataset store out, with a report of what is in it.",
            "flows.dataset.request:PrepareRequest",
            job="flows.dataset.run:run_preparation",
            flow="flows.dataset.flow:prepare_dataset",
            kept="finished shards are kept",
        ),
        "weights": _job(
            "Class frequencies of a dataset, and the weights that make up for them.",
            "flows.dataset.request:WeightsRequest",
            job="flows.dataset.class_weights:count_class_weights",
            flow="flows.dataset.flow:compute_class_weights",
            kept="the dataset is as it was",
        ),
        "train": _job(
            "A dataset in, a calibrated bundle with its card, scores and report out.",
            "flows.training.request:TrainRequest",
            job="flows.training.run:run_training",
            flow="flows.training.flow:train",
            kept="the last checkpoint is kept",
        ),
        "calibrate": _job(
            "Labelled samples in; a bundle with the calibration and the threshold that fit them best out.",
            "flows.calibration.request:CalibrateRequest",
            job="flows.calibration.run:run_calibration",
            flow="flows.calibration.flow:calibrate",
            kept="what is scored is kept",
        ),
        "quantise": _job(
            "A bundle and a dataset in; the bundle with a graph of integers for CPUs out, if it loses next to nothing.",
            "flows.quantisation.request:QuantiseRequest",
            job="flows.quantisation.run:run_quantisation",
            flow="flows.quantisation.flow:quantise",
            kept="what is scored is kept",
        ),
        "evaluate": _job(
            "Scores of a bundle on labelled samples, on a whole labelled mosaic, or both.",
            "flows.evaluation.request:EvaluateRequest",
            job="flows.evaluation.run:run_evaluation",
            flow="flows.evaluation.flow:evaluate",
            kept="what is scored is kept",
        ),
        "compare": _job(
            "A dataset in; tables with means and spreads over seeds, curves and pictures of methods on it out.",
            "flows.comparison.request:CompareRequest",
            job="flows.comparison.run:run_comparison",
            flow="flows.comparison.flow:compare_methods",
            kept="finished trainings and the last checkpoint of others are kept",
        ),
        "figures": _job(
            "Distances by layer, Grad-CAM, a pixel's attention, t-SNE, and η and γ by epoch, as PNG and one page.",
            "flows.figures.request:FiguresRequest",
            job="flows.figures.run:draw_figures",
            flow="flows.figures.flow:figures",
            kept="finished figures are kept",
        ),
        "bundle": Command(
            help="Show what a model bundle is: its card and what it needs.",
            request="flows.cli.direct:BundleRequest",
            run="flows.cli.direct:show_bundle",
        ),
        "import-model": Command(
            help="Turn a network that others have trained, a graph of ONNX, into a bundle.",
            request="flows.cli.import_model:ImportModelRequest",
            run="flows.cli.import_model:import_model",
        ),
        "import-authors": Command(
            help="Turn a checkpoint of the DASNet authors into a bundle.",
            request="flows.cli.direct:ImportRequest",
            run="flows.cli.direct:import_authors",
        ),
    },
    "Operate": {
        "server": Command(
            help="Prefect's server and a worker for this machine, until Ctrl-C: UI, schedules, automations.",
            request="flows.service.standing:ServerOptions",
            run="flows.cli.server:server",
        ),
        "deploy": Command(
            help="Register the flows with a Prefect server: work pool, queues, deployments, automations. Safe to "
            "repeat.",
            request="flows.cli.server:DeployRequest",
            run="flows.cli.server:deploy",
        ),
        "certs": Command(
            help="Make a private authority and the certificates with which scheduler, workers and clients trust each "
            "other.",
            request="flows.cli.server:CertificatesRequest",
            run="flows.cli.server:certs",
        ),
        "synthesize": Command(
            help="Make a bitemporal pair of mosaics with known changes and known pseudo-changes, at any size.",
            request="flows.cli.direct:SynthesizeRequest",
            run="flows.cli.direct:synthesize",
        ),
    },
}

COMMANDS = {name: command for commands in SECTIONS.values() for name, command in commands.items()}

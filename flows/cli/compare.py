"""`dasnet compare | figures`: methods beside each other on one dataset, and what one of them sees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import CertificatesOption, ClusterOption, ClusterSetOption, cluster_of
from flows.cli.terminal import numbers, print_pairs, run_job


def compare(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory, of `dasnet prepare`.")],
    output: Annotated[Path, typer.Option(help="Directory of the comparison: new, or of the same dataset.")],
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between them, for example dasnet,siam-conv,fc-siam-diff,cva; default: all."
        ),
    ] = None,
    tables: Annotated[
        str, typer.Option(help="Of methods, losses, attention, lambda, decoder, training, margins, with commas.")
    ] = "methods",
    seeds: Annotated[int, typer.Option(help="Trainings of each method.")] = 3,
    recipe: Annotated[str, typer.Option(help="Of DASNet: cpu_small | paper_cdd | paper_bcdd.")] = "cpu_small",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value for all recipes, e.g. epochs=5, or for one: dasnet.backbone=vgg16."),
    ] = None,
    backbone_weights: Annotated[
        list[str] | None,
        typer.Option(help="backbone=FILE that it starts from, e.g. vgg16=vgg16.pth; other networks: random weights."),
    ] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Also F1 against the strength of season, haze, shift and gain.")
    ] = False,
    peak: Annotated[
        float, typer.Option(help="Highest value of the images, for --robustness; 0: the recipes', or their type's.")
    ] = 0.0,
    cluster: ClusterOption = "local",
    workers: Annotated[
        int | None, typer.Option(help="Worker processes; on `local` as many trainings at a time.")
    ] = None,
    certificates: CertificatesOption = None,
    cluster_set: ClusterSetOption = None,
) -> None:
    """A dataset in; tables with means and spreads over seeds, curves and pictures of methods on it out."""
    from flows.comparison.request import CompareRequest
    from flows.training.request import parsed_changes

    try:
        parsed = parsed_changes(changes or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    weights = dict(named.partition("=")[::2] for named in backbone_weights or [])
    if nameless := [name for name, path in weights.items() if not path]:
        raise typer.BadParameter(f"--backbone-weights takes backbone=FILE, not {nameless[0]!r}")
    values = {
        "dataset": dataset,
        "output": output,
        "tables": tables.split(","),
        "seeds": seeds,
        "recipe": recipe,
        "changes": parsed,
        "backbone_weights": weights,
        "robustness": robustness,
        "peak": peak,
        "cluster": cluster_of(cluster, workers=workers, certificates=certificates, settings=cluster_set),
    }
    request = CompareRequest.model_validate(values | ({} if methods is None else {"methods": methods.split(",")}))

    result = run_job(
        request,
        output,
        job="flows.comparison.run:run_comparison",
        flow="flows.comparison.flow:compare_methods",
        kept="finished trainings and the last checkpoint of others are kept",
    )
    print_pairs(result.lines())


def figures(
    source: Annotated[str, typer.Argument(help="Training directory, path of a bundle, or name of a shipped one.")],
    dataset: Annotated[Path, typer.Option(help="Dataset directory; its test split is shown.")],
    output: Annotated[Path, typer.Option(help="Directory of the figures.")],
    beside: Annotated[
        str | None, typer.Option(help="Another training or bundle in the t-SNE, for example one without attention.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Test samples with change that are shown.")] = 3,
    pixel: Annotated[
        str | None, typer.Option(help="row,column whose attention is shown; default: where it changed.")
    ] = None,
) -> None:
    """Distances by layer, Grad-CAM, a pixel's attention, t-SNE, and η and γ by epoch, as PNG and one page."""
    from flows.figures.request import FiguresRequest

    request = FiguresRequest.model_validate(
        {
            "source": source,
            "dataset": dataset,
            "output": output,
            "beside": beside,
            "samples": samples,
            "pixel": numbers(pixel, "--pixel", int),
        }
    )

    result = run_job(
        request,
        output,
        job="flows.figures.run:draw_figures",
        flow="flows.figures.flow:figures",
        kept="finished figures are kept",
    )
    print_pairs(result.lines())

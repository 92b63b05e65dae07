"""`dasnet prepare | weights | train | evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import CertificatesOption, ClusterOption, ClusterSetOption, WorkersOption, cluster_of
from flows.cli.terminal import numbers, print_pairs, run_job


def add_training_commands(app: typer.Typer) -> None:
    """Add the commands that lead from labelled imagery to a bundle."""
    for name, command in (("prepare", prepare), ("weights", weights), ("train", train), ("evaluate", evaluate)):
        app.command(name)(command)


def prepare(
    output: Annotated[Path, typer.Option(help="Dataset directory: new, or of the same dataset, which then goes on.")],
    source: Annotated[
        Path | None, typer.Argument(help="Folder of a dataset, or a .csv table of scenes; or give mosaics below.")
    ] = None,
    before: Annotated[str | None, typer.Option(help="Mosaic of the first date.")] = None,
    after: Annotated[str | None, typer.Option(help="Mosaic of the second date.")] = None,
    label: Annotated[Path | None, typer.Option(help="What changed: raster or polygons.")] = None,
    label_before: Annotated[Path | None, typer.Option(help="Mask of the first date, for changed = differs.")] = None,
    label_after: Annotated[Path | None, typer.Option(help="Mask of the second date.")] = None,
    window: Annotated[int, typer.Option(help="Side of a sample, in pixels.")] = 256,
    stride: Annotated[int | None, typer.Option(help="Pixels between windows; default: they do not overlap.")] = None,
    bands: Annotated[str | None, typer.Option(help="Band numbers to keep, for example 1,2,3.")] = None,
    band_names: Annotated[str | None, typer.Option(help="Their names, for example red,green,blue.")] = None,
    resolution: Annotated[float | None, typer.Option(help="Metres a pixel, where files do not tell.")] = None,
    grid_resolution: Annotated[float | None, typer.Option(help="Resample mosaics to this pixel size.")] = None,
    split: Annotated[str, typer.Option(help="auto | published | blocks | pictures | columns:0.6,0.7")] = "auto",
    shares: Annotated[str, typer.Option(help="Train, val, test where they are dealt out.")] = "8,1,1",
    cell: Annotated[int, typer.Option(help="Side of a cell of `blocks`, in windows.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    max_nodata: Annotated[float, typer.Option(help="Largest share of unknown pixels in a sample.")] = 0.5,
    shard: Annotated[int, typer.Option(help="Samples in one shard.")] = 64,
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
    certificates: CertificatesOption = None,
    cluster_set: ClusterSetOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Take up quarantined shards.")] = False,
) -> None:
    """Labelled imagery in, one dataset store out, with a report of what is in it."""
    from flows.dataset.request import PrepareRequest

    request = PrepareRequest.model_validate(
        {
            "source": source,
            "before": before,
            "after": after,
            "label": label,
            "label_before": label_before,
            "label_after": label_after,
            "output": output,
            "window": window,
            "stride": stride,
            "bands": numbers(bands, "--bands", int),
            "band_names": numbers(band_names, "--band-names", str),
            "resolution": resolution,
            "grid_resolution": grid_resolution,
            "split": split,
            "shares": numbers(shares, "--shares", float),
            "cell": cell,
            "seed": seed,
            "max_nodata": max_nodata,
            "shard": shard,
            "cluster": cluster_of(cluster, workers=workers, certificates=certificates, settings=cluster_set),
            "retry_failed": retry_failed,
        }
    )

    result = run_job(
        request,
        output,
        job="flows.dataset.run:run_preparation",
        flow="flows.dataset.flow:prepare_dataset",
        kept="finished shards are kept",
    )
    print_pairs(result.lines())


def weights(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory.")],
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
    certificates: CertificatesOption = None,
    cluster_set: ClusterSetOption = None,
) -> None:
    """Class frequencies of a dataset, and the weights that make up for them."""
    from flows.dataset.request import WeightsRequest

    request = WeightsRequest.model_validate(
        {
            "dataset": dataset,
            "cluster": cluster_of(cluster, workers=workers, certificates=certificates, settings=cluster_set),
        }
    )
    result = run_job(
        request,
        dataset,
        job="flows.dataset.class_weights:count_class_weights",
        flow="flows.dataset.flow:compute_class_weights",
        kept="the dataset is as it was",
    )
    print_pairs(result.lines())


def train(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory, of `dasnet prepare`.")],
    output: Annotated[Path, typer.Option(help="Training directory: new, or of the same training, which then goes on.")],
    model: Annotated[
        str | None, typer.Option(help="dasnet | fc-ef | fc-siam-conc | fc-siam-diff | cdnet | bidatenet | dscn | sccn")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Default: the model's own, cpu_small for dasnet; or paper_cdd | paper_bcdd.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="name=value of the recipe, e.g. epochs=5, augmentation.haze=0.4.")
    ] = None,
    backbone_weights: Annotated[Path | None, typer.Option(help="Weights to start from (.safetensors, .pth).")] = None,
    about: Annotated[Path | None, typer.Option(help="Text file for the model card: the data and their terms.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the bundle; default: the output directory's.")] = None,
    figures: Annotated[bool, typer.Option(help="Draw what the network sees into the report.")] = True,
    cluster: ClusterOption = "local",
    workers: Annotated[int | None, typer.Option(help="Ranks, one a worker; default: 1, or one a GPU.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Of each rank on a CPU; default: its share of the cores. Weights' last bits depend on it."),
    ] = None,
    certificates: CertificatesOption = None,
    cluster_set: ClusterSetOption = None,
) -> None:
    """A dataset in, a calibrated bundle with its card, scores and report out."""
    from flows.training.request import TrainRequest, chosen_recipe, parsed_changes

    try:
        chosen = chosen_recipe(model=model, recipe=recipe)
        parsed = parsed_changes(changes or [])
        text = about.read_text().strip() if about is not None else ""
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    request = TrainRequest.model_validate(
        {
            "dataset": dataset,
            "output": output,
            "recipe": chosen,
            "changes": parsed,
            "backbone_weights": backbone_weights,
            "about": text,
            "name": name,
            "figures": figures,
            "cluster": cluster_of(
                cluster,
                workers=workers or (1 if cluster == "local" else None),
                lanes=threads,
                certificates=certificates,
                settings=cluster_set,
            ),
        }
    )

    result = run_job(
        request,
        output,
        job="flows.training.run:run_training",
        flow="flows.training.flow:train",
        kept="the last checkpoint is kept",
    )
    print_pairs(result.lines())


def evaluate(
    bundle: Annotated[str, typer.Argument(help="Name of a shipped bundle, or a path.")],
    output: Annotated[Path, typer.Option(help="Directory of the evaluation.")],
    dataset: Annotated[Path | None, typer.Option(help="Dataset directory.")] = None,
    split: Annotated[str, typer.Option(help="train | val | test")] = "test",
    before: Annotated[str | None, typer.Option(help="A whole mosaic as well: its first date …")] = None,
    after: Annotated[str | None, typer.Option(help="… its second date …")] = None,
    label: Annotated[Path | None, typer.Option(help="… and what changed: raster or polygons.")] = None,
    bbox: Annotated[str | None, typer.Option(help="left,bottom,right,top of the mosaic to score.")] = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel size to detect at, in units of its CRS.")] = None,
    bands: Annotated[str | None, typer.Option(help="Band numbers for the bundle's bands, for example 1,2,3.")] = None,
    precision: Annotated[str, typer.Option(help="auto | float32 | bfloat16")] = "float32",
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
    certificates: CertificatesOption = None,
    cluster_set: ClusterSetOption = None,
) -> None:
    """Scores of a bundle on labelled samples, on a whole labelled mosaic, or both."""
    from flows.evaluation.request import EvaluateRequest

    where = cluster_of(cluster, workers=workers, certificates=certificates, settings=cluster_set)
    mosaic = None
    if before is not None or after is not None:
        mosaic = {
            "before": before,
            "after": after,
            "output": output / "run",
            "bundle": bundle,
            "bands": numbers(bands, "--bands", int),
            "grid": {"bbox": numbers(bbox, "--bbox", float), "resolution": resolution},
            "precision": precision,
            "cluster": where,
        }
    request = EvaluateRequest.model_validate(
        {
            "bundle": bundle,
            "output": output,
            "dataset": dataset,
            "split": split,
            "mosaic": mosaic,
            "label": label,
            "precision": precision,
            "cluster": where,
        }
    )

    result = run_job(
        request,
        output,
        job="flows.evaluation.run:run_evaluation",
        flow="flows.evaluation.flow:evaluate",
        kept="what is scored is kept",
    )
    print_pairs(result.lines())

"""Options that several commands have, written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.terminal import numbers

Command = Callable[..., None]


def with_options(**groups: Callable[..., dict[str, Any]]) -> Callable[[Command], Command]:
    """Give a command the options of a group in the place of one parameter, which takes what the group makes of them.

    Args:
        groups: by the name of the parameter; each a function whose parameters are options.
    """

    def decorate(command: Command) -> Command:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            group = groups.get(parameter.name)
            taken = [parameter] if group is None else inspect.signature(group, eval_str=True).parameters.values()
            parameters += (each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in taken)

        @functools.wraps(command)
        def with_groups(**values: Any) -> None:
            for name, group in groups.items():
                values[name] = group(**{option: values.pop(option) for option in inspect.signature(group).parameters})
            command(**values)

        # what typer makes the options of
        with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_groups.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_groups

    return decorate


def grid_options(
    bands: Annotated[str | None, typer.Option(help="Band numbers for the bundle's bands, for example 4,1,2.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of the result; default: the first date's.")] = None,
    resolution: Annotated[float | None, typer.Option(help="Pixel size of the result, in units of its CRS.")] = None,
    bbox: Annotated[str | None, typer.Option(help="left,bottom,right,top of the result.")] = None,
    region: Annotated[Path | None, typer.Option(help="GeoJSON polygons; outside them the result is nodata.")] = None,
    resampling: Annotated[
        str, typer.Option(help="nearest | bilinear | cubic | average, where grids differ.")
    ] = "bilinear",
) -> dict[str, Any]:
    """Which bands are looked at, and on which grid: values of an :class:`~flows.inference.request.InferenceRequest`."""
    return {
        "bands": numbers(bands, "--bands", int),
        "grid": {"crs": crs, "resolution": resolution, "bbox": numbers(bbox, "--bbox", float), "region": region},
        "resampling": resampling,
    }


def computing_options(
    cluster: ClusterOption = "local",
    workers: WorkersOption = None,
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
) -> dict[str, Any]:
    """Where and how it is computed: values of an :class:`~flows.inference.request.InferenceRequest`."""
    return {
        "cluster": cluster_of(cluster, workers=workers, lanes=lanes, certificates=certificates, settings=cluster_set),
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


ClusterOption = Annotated[
    str, typer.Option(help="local | cuda | tls://host:port | tcp://host:port | FILE.json of a scheduler")
]


WorkersOption = Annotated[int | None, typer.Option(help="Worker processes.")]


CertificatesOption = Annotated[
    Path | None,
    typer.Option(help="For tls://: folder of `dasnet certs`.", envvar="DASNET_CERTIFICATES", show_envvar=True),
]


ClusterSetOption = Annotated[
    list[str] | None,
    typer.Option(help="name=value of memory_limit, worker_hours, in_flight, and for cuda protocol, rmm_pool."),
]


def cluster_of(
    kind: str,
    *,
    workers: int | None,
    lanes: int | None = None,
    certificates: Path | None = None,
    settings: list[str] | None = None,
) -> dict[str, Any]:
    """The values of a :class:`~flows.cluster.config.ClusterConfig`, from the options of a command.

    Args:
        certificates: kept for schedulers that speak TLS, since its environment variable stands for all commands.
        settings: texts ``name=value``.
    """
    parsed: dict[str, str] = {}
    for assignment in settings or ():
        name, separator, value = assignment.partition("=")
        if not separator:
            raise typer.BadParameter(f"--cluster-set takes name=value, not {assignment!r}")
        parsed[name.strip()] = value.strip()
    if kind in ("local", "cuda"):
        certificates = None
    return {**parsed, "kind": kind, "workers": workers, "lanes": lanes, "certificates": certificates}

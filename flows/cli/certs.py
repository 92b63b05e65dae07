"""What all commands that compute ask of a cluster, and ``dasnet certs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.terminal import print_pairs, stderr

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
    """The values of a :class:`~flows.run.fields.ClusterConfig`, from the options of a command.

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


def certs(
    directory: Annotated[Path, typer.Argument(help="Folder for them: missing or empty.")],
    host: Annotated[list[str] | None, typer.Option(help="Name or address of a scheduler or worker; repeat.")] = None,
    days: Annotated[int, typer.Option(min=1, help="Until they expire.")] = 365,
    authority: Annotated[
        Path | None, typer.Option(help="Folder with ca.pem and ca-key.pem to go on issuing from; default: new ones.")
    ] = None,
) -> None:
    """Make a private authority and the certificates with which scheduler, workers and clients trust each other."""
    from flows.cluster.certificates import ROLES, make_certificates

    made = make_certificates(directory, hosts=host or (), days=days, authority=authority)
    print_pairs(
        [
            ("authority", str(made.authority)),
            *((role, f"{made.certificate(role)}, {made.key(role).name}") for role in ROLES),
        ]
    )
    if made.authority_key.exists():
        stderr.print(
            f"Keep {made.authority_key} off the cluster: who has it can let anyone in.", markup=False, soft_wrap=True
        )

"""What all commands that compute ask of a cluster, and ``dasnet certs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.terminal import print_pairs, stderr


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

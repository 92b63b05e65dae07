"""`dasnet server | deploy | certs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from flows.cli.terminal import print_pairs, print_warning, stderr
from flows.run.fields import POSITIONAL, Cli, Frozen
from flows.service.standing import ServerOptions


def server(request: ServerOptions) -> None:
    """Serve until Ctrl-C."""
    from flows.service.login import login_place, require_home

    require_home()  # before Prefect is imported, which warns of it in words of its own
    from flows.service.api import announced, is_loopback, speaking_to
    from flows.service.deployments import default_file, is_registered, register
    from flows.service.revive import asked_for_signs_of_life
    from flows.service.standing import Worker, running_server, serve_until_stopped

    with running_server(request) as running, speaking_to(f"{running.address}/api", running.secret):
        print_pairs([("server", running.address), ("login", f"in {request.auth_file or login_place()}")])
        if not is_loopback(request.host):
            _warn(
                f"{request.host} is not loopback, and HTTP does not hide the login: put a proxy with TLS in front of it"
            )
        if not is_registered():
            print_pairs(register(file=default_file()).lines())
        with announced(running.address), Worker(running) as worker, asked_for_signs_of_life(_warn):
            print_pairs([("worker", f"started; logs in {worker.log.parent}"), ("stop", "Ctrl-C")])
            serve_until_stopped(running, worker, warn=_warn)
            stderr.print("stopping: runs in progress are stopped; what they have finished is kept", soft_wrap=True)


def _warn(message: str) -> None:
    print_warning(message)


class DeployRequest(Frozen):
    """What to register with a Prefect server."""

    file: Annotated[Path | None, Field(description="The deployments; default: deploy/prefect.yaml.")] = None
    pool: Annotated[Literal["process", "docker", "kubernetes"], Field(description="Where runs go.")] = "process"
    notify: Annotated[
        str | None,
        Cli(metavar="TYPE/NAME"),
        Field(description="Block of the server that tells of bad ends, for example webhook/failures."),
    ] = None


def deploy(request: DeployRequest) -> None:
    """Register everything and print what is there now."""
    from flows.service.api import configured_api_url, require_api, speaking_to
    from flows.service.deployments import default_file, register

    address = configured_api_url() or f"{ServerOptions().address}/api"
    with speaking_to(address, None):
        require_api(address)
        file = request.file or default_file()
        print_pairs(register(file=file, pool_type=request.pool, notify=request.notify).lines())


class CertificatesRequest(Frozen):
    """Whose certificates to make, and where."""

    directory: Annotated[Path, POSITIONAL, Field(description="Folder for them: missing or empty.")]
    host: Annotated[
        list[str],
        Cli(metavar="NAME", is_repeatable=True),
        Field(description="Name or address of a scheduler or worker; may be repeated."),
    ] = []  # noqa: RUF012
    days: Annotated[int, Field(ge=1, description="Days until they expire.")] = 365
    authority: Annotated[
        Path | None,
        Cli(metavar="DIR"),
        Field(description="Folder with ca.pem and ca-key.pem to go on issuing from; default: new ones."),
    ] = None


def certs(request: CertificatesRequest) -> None:
    """Make them and print where they are."""
    from flows.cluster.certificates import ROLES, make_certificates

    made = make_certificates(request.directory, hosts=request.host, days=request.days, authority=request.authority)
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

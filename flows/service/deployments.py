"""`dasnet deploy`: work pool, queues, a deployment for each flow, and automations, on a Prefect server."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from flows.run.errors import PrefectServerError
from flows.run.heartbeats import TAG
from flows.service.automations import notification, register_automations
from storage.errors import InputError

QUEUES = {"gpu": 1, "cpu": 4}
"""Runs at a time in each work queue: no two runs share one GPU cluster, whichever deployments they belong to. (Not by a
limit of each deployment: its lease is in the server's memory, and a server that is started again would end the run.)"""

POOL_TYPES = ("process", "docker", "kubernetes")


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What is registered with the server.

    Attributes:
        pool: name of the work pool.
        deployments: names of the deployments, ``flow/deployment``.
        automations: what was done with each automation, by its name.
        kept_schedules: number of schedules that are as they were before.
    """

    pool: str
    deployments: list[str]
    automations: dict[str, str]
    kept_schedules: int

    def lines(self) -> list[tuple[str, str]]:
        """(what, which) for a person."""
        schedules = f", {self.kept_schedules} schedules as they were" if self.kept_schedules else ""
        return [
            ("work pool", f"{self.pool}, queues " + ", ".join(f"{queue} ({limit})" for queue, limit in QUEUES.items())),
            ("deployments", ", ".join(self.deployments) + schedules),
            *(("automation", f"{name.removeprefix('dasnet: ')}: {done}") for name, done in self.automations.items()),
        ]


def default_file() -> Path:
    """``deploy/prefect.yaml`` of the checkout that this program runs from.

    Raises:
        InputError: it does not run from one.
    """
    file = Path(__file__).resolve().parents[2] / "deploy" / "prefect.yaml"
    if not file.exists():
        raise InputError(f"{file} is not there: name the project's deploy/prefect.yaml with --file")
    return file


def register(*, file: Path, pool_type: str = "process", notify: str | None = None) -> Registered:
    """Register everything with the configured server; what is there already is updated, schedules are kept.

    Args:
        file: the project's ``prefect.yaml``.
        pool_type: where the runs go, of :data:`POOL_TYPES`.
        notify: block of the server (``type-slug/name``) that tells somebody of runs that ended badly.

    Raises:
        InputError: the file is not ours, a variable it needs is not set, or there is no such block.
        PrefectServerError: the server refused a deployment, or has gone.
    """
    content = for_pool(_read(file), pool_type)
    try:
        return asyncio.run(_register(content, pool_type=pool_type, notify=notify))
    except PrefectHTTPStatusError as error:
        raise PrefectServerError(f"the Prefect server refused to register: {error}") from error
    except httpx.TransportError as error:
        raise PrefectServerError(f"the Prefect server does not answer any more ({error}): deploy again") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict) or not content.get("deployments"):
        raise InputError(f"{file} has no deployments")
    return content


def for_pool(content: Mapping[str, Any], pool_type: str) -> dict[str, Any]:
    """The deployments for a type of work pool; each is called as its pool.

    ``pod`` of the result, where there is one, is for :func:`with_pod`.

    Raises:
        InputError: unknown type, or an environment variable that it needs is not set.
    """
    if pool_type not in POOL_TYPES:
        raise InputError(f"--pool is one of {', '.join(POOL_TYPES)}, not {pool_type!r}")
    result = deepcopy(dict(content))
    if pool_type != "process":
        place = result["definitions"]["pools"][pool_type]
        variables = sorted(set(re.findall(r"\{\{ \$(\w+) \}\}", yaml.safe_dump(place))))
        if missing := [name for name in variables if name not in os.environ]:
            raise InputError(f"--pool {pool_type} needs {', '.join(missing)} in the environment")
        if "pod" in place:
            result["pod"] = place.pop("pod")
        for deployment in result["deployments"]:
            deployment["name"] = place["name"]
            deployment["work_pool"] = {**place, "work_queue_name": deployment["work_pool"]["work_queue_name"]}
    return result


def with_pod(template: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, Any]:
    """Prefect's template for the jobs of a Kubernetes pool, with what `pod` adds to the pod of each.

    Args:
        pod: ``metadata`` and ``spec`` of a Kubernetes pod, and ``container``, which its one container gets.
    """
    result = deepcopy(dict(template))
    pod_template = result["job_configuration"]["job_manifest"]["spec"]["template"]
    pod_template["metadata"] = {**pod_template.get("metadata", {}), **pod["metadata"]}
    pod_template["spec"].update(pod["spec"])
    [container] = pod_template["spec"]["containers"]
    container.update(pod["container"])
    return result


def _is_usual(template: Mapping[str, Any]) -> bool:
    """Whether a pool's jobs have pods as Prefect makes them: one container, and no volume."""
    try:
        spec = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        [container] = spec["containers"]
        return "volumes" not in spec and "volumeMounts" not in container
    except (KeyError, TypeError, ValueError):
        return False


async def ensure_pool(client: PrefectClient, pool: str, pool_type: str, pod: Mapping[str, Any] | None = None) -> None:
    """The work pool and its queues with their limits; a pool that is there already keeps its limits, and its template
    where somebody has changed its pods.

    Args:
        pod: for :func:`with_pod`; None = the jobs are Prefect's usual ones.

    Raises:
        InputError: a pool of that name is of another type.
    """
    try:
        work_pool = await client.read_work_pool(pool)
    except ObjectNotFound:
        template = deepcopy(await get_default_base_job_template_for_infrastructure_type(pool_type) or {})
        if pod is not None:
            template = with_pod(template, pod)
        work_pool = await client.create_work_pool(
            WorkPoolCreate(name=pool, type=pool_type, description="Runs of DASNet", base_job_template=template)
        )
    if work_pool.type != pool_type:
        raise InputError(f"the work pool {pool} is there already and of type {work_pool.type}, not {pool_type}")
    if pod is not None and _is_usual(work_pool.base_job_template):
        # an earlier version made the pool: its jobs would not see the files that the deployments name
        template = with_pod(work_pool.base_job_template, pod)
        await client.update_work_pool(pool, WorkPoolUpdate(base_job_template=template))
    existing = {queue.name for queue in await client.read_work_queues(work_pool_name=pool)}
    for queue, limit in QUEUES.items():
        if queue not in existing:
            await client.create_work_queue(name=queue, concurrency_limit=limit, work_pool_name=pool)


async def _register(content: dict[str, Any], *, pool_type: str, notify: str | None) -> Registered:
    pool = content["deployments"][0]["work_pool"]["name"]
    async with get_client() as client:
        message = None if notify is None else await notification(client, notify)
        await ensure_pool(client, pool, pool_type, content.pop("pod", None))
        before = await _ours(client)
        try:
            await asyncio.to_thread(_deploy, content)
        finally:  # where one is refused, those that were registered before it have lost their schedules too
            after = [deployment for deployment in await _ours(client) if deployment.work_pool_name == pool]
            kept_schedules = await _keep_schedules(client, before, after)
        flows = {deployment.flow_id: (await client.read_flow(deployment.flow_id)).name for deployment in after}
        return Registered(
            pool=pool,
            deployments=sorted(f"{flows[deployment.flow_id]}/{deployment.name}" for deployment in after),
            automations=await register_automations(client, message),
            kept_schedules=kept_schedules,
        )


async def _ours(client: PrefectClient) -> list[DeploymentResponse]:
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    return await client.read_deployments(deployment_filter=tagged)


def _deploy(content: dict[str, Any]) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="dasnet-", suffix=".yaml") as file:
        yaml.safe_dump(content, file, sort_keys=False)
        file.flush()
        ended = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", file.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "PWD": str(Path.cwd()), "DO_NOT_TRACK": "1"},
        )
    count, total = ended.stdout.count("successfully created"), len(content["deployments"])
    if ended.returncode or count != total:
        output = (ended.stdout + ended.stderr).strip()
        raise PrefectServerError(f"{count} of {total} deployments were registered:\n{output}")


async def _keep_schedules(
    client: PrefectClient, before: list[DeploymentResponse], after: list[DeploymentResponse]
) -> int:
    """Prefect replaces a deployment's schedules: bring back those from before, as a person changed them.

    Returns:
        The number of schedules from before.
    """
    count = 0
    deployments = {deployment.id: deployment for deployment in after}
    for old in before:
        if old.id not in deployments:
            continue
        old_schedules = [_as_created(schedule) for schedule in old.schedules]
        count += len(old_schedules)
        schedules = {schedule.id: _as_created(schedule) for schedule in deployments[old.id].schedules}
        slugs = {schedule.slug for schedule in old_schedules if schedule.slug}
        for identifier, schedule in schedules.items():
            if schedule.slug in slugs and schedule not in old_schedules:
                await client.delete_deployment_schedule(old.id, identifier)
        if missing := [schedule for schedule in old_schedules if schedule not in schedules.values()]:
            await client.create_deployment_schedules(old.id, missing)
    return count


def _as_created(schedule: DeploymentSchedule) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(
        schedule=schedule.schedule,
        active=schedule.active,
        max_scheduled_runs=schedule.max_scheduled_runs,
        parameters=schedule.parameters,
        slug=schedule.slug,
    )


def is_registered() -> bool:
    """Whether the server has a deployment of ours."""

    async def any_of_ours() -> bool:
        async with get_client() as client:
            return bool(await _ours(client))

    return asyncio.run(any_of_ours())

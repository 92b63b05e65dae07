"""Imports go down only, and each library stays in its room."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("flows", "dasnet", "tiling", "storage")
MAY_IMPORT = {"flows": {"dasnet", "tiling", "storage"}, "dasnet": set(), "tiling": set(), "storage": set()}
CONVENTIONS = "tiling.conventions"
"""What every room may import; itself it imports none."""
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported(path: Path, *, top_level: bool = False) -> set[str]:
    """Full names of the modules that a file imports; with `top_level` only those that importing it imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def assigned(path: Path) -> set[str]:
    """Names that a module's own lines give a value."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            names |= {part.id for part in getattr(target, "elts", [target]) if isinstance(part, ast.Name)}
    return names


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    below = {name for name in imported(path) if not f"{name}.".startswith(f"{CONVENTIONS}.")}
    others = roots(below) & set(ROOMS) - {room}
    assert others <= MAY_IMPORT[room]


def test_conventions_have_no_copies() -> None:
    """What a number in a file stands for is said once, in a module that imports nothing of ours or of others."""
    source = ROOT / "tiling" / "conventions.py"
    assert roots(imported(source)) <= {"__future__", "math", "typing"}
    names = assigned(source)
    copies = {str(path.relative_to(ROOT)): assigned(path) & names for path in MODULES if path != source}
    assert not {path: found for path, found in copies.items() if found}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    room, found = path.relative_to(ROOT).parts[0], roots(imported(path))
    if room != "flows":
        assert "prefect" not in found
    if room in ("dasnet", "storage") or (room == "tiling" and path.name != "execute.py"):
        assert not {"dask", "distributed"} & found
    if room in ("tiling", "storage"):
        assert "torch" not in found
    if path.name != "_torchvision.py":
        assert "torchvision" not in found, "only _torchvision.py may: beside a CPU build of torch it needs help"
    assert not {"pickle.load", "pickle.loads", "pickle.Unpickler"} & imported(path)
    assert "dask_cuda" not in roots(imported(path, top_level=True))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_checkpoints_are_loaded_as_weights_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 30


def test_what_only_looks_is_light() -> None:
    """`dasnet status` and a refusal answer at once: neither waits for the libraries that a run needs."""
    heavy = {"dask", "distributed", "prefect", "torch", "rasterio", "xarray", "zarr"}
    listed = f"import sys, flows.cli.main, flows.run.errors, flows.status; print(*({heavy!r} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", listed], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_requests_are_read_before_prefect_is() -> None:
    """A command quiets Prefect's log before it is imported, which must not have happened while its request was read."""
    requests = sorted(path.parent.name for path in (ROOT / "flows").glob("*/request.py"))
    listed = f"import importlib, sys; [importlib.import_module(f'flows.{{name}}.request') for name in {requests}]"
    listed += "; print('prefect' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", listed], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(requests) >= 7 and ended.stdout.split() == ["False"]

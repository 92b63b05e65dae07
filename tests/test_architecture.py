"""What may import what: the rooms, the rooms inside them, and what stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("flows", "dasnet", "tiling", "storage")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

FEATURES = {
    "detect",
    "archive",
    "dataset",
    "figures",
    "evaluation",
    "calibration",
    "quantisation",
    "training",
    "comparison",
}
"""Rooms of flows/ that do one job each."""

MAY_IMPORT: dict[str, set[str]] = {
    # the ground of flows/
    "flows.run": set(),
    "flows.cluster": {"flows.run"},
    "flows.service": {"flows.run"},
    "flows.inference": {"flows.run", "flows.cluster"},
    # the features: what of each other they use
    "flows.detect": set(),
    "flows.archive": set(),
    "flows.dataset": set(),
    "flows.figures": {"flows.dataset"},
    "flows.evaluation": {"flows.detect", "flows.dataset"},
    "flows.calibration": {"flows.evaluation", "flows.dataset"},
    "flows.quantisation": {"flows.evaluation", "flows.dataset"},
    "flows.training": {"flows.evaluation", "flows.figures", "flows.dataset"},
    "flows.comparison": {"flows.training", "flows.dataset"},
    "dasnet.networks": set(),
    "dasnet.prediction": {"dasnet.networks"},
    "dasnet.training": {"dasnet.prediction", "dasnet.networks"},
    "dasnet.baselines": {"dasnet.prediction"},
    "storage.places": set(),
    "storage.synthetic": set(),
    "storage.imagery": {"storage.places", "storage.geometry"},
    "storage.stores": {"storage.places", "storage.geometry"},
    "storage.archives": {"storage.imagery", "storage.places"},
    "storage.products": {"storage.stores", "storage.places"},
    "storage.pages": {"storage.products", "storage.stores", "storage.places"},
    "storage.datasets": {"storage.imagery", "storage.stores", "storage.places"},
}
"""Beside errors and what stands in no room; features may import all of the ground."""

GROUND = {"flows.run", "flows.cluster", "flows.inference"}

ALL_ROOMS = {"flows.cli", "flows.interface"}
"""For a person at a terminal, and for one in Python."""

DOORS = {
    "flows.cluster": {"connect", "stage", "config", "layout", "lending", "equipment", "settings", "certificates"},
    "flows.detect": {"flow", "request", "run"},
    "flows.training": {"flow", "request", "directory", "run", "results"},
    "flows.dataset": {"fitting", "report"},
    "flows.figures": {"pictures"},
    "flows.evaluation": {"samples", "tools"},
}
"""Modules of a room that other rooms may import; of rooms not named all."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


@cache
def imported(path: Path, *, top_level: bool = False) -> frozenset[str]:
    """Full names of the modules that a file imports; with `top_level` only those that importing it imports."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def roots(names: frozenset[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def room_of(module: str) -> str:
    """A module's room: the package below flows/, storage/ or dasnet/, else the module or its top folder."""
    return ".".join(module.split(".")[:2])


def arrows() -> dict[tuple[str, str], set[str]]:
    """(room, room) → "module -> module" of the imports between them."""
    found = defaultdict(set)
    for module, path in MODULES.items():
        for target in imported(path) & MODULES.keys():
            if room_of(module) != room_of(target) and path.name != "__init__.py":  # a face hands names on
                found[room_of(module), room_of(target)].add(f"{module} -> {target}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    """flows → dasnet, tiling, storage, which share nothing but what numbers in files stand for."""
    room = path.relative_to(ROOT).parts[0]
    others = roots(imported(path) - {"tiling", "tiling.conventions"}) & set(ROOMS) - {room}
    if room != "flows":
        named = {name for name in imported(path) if name.startswith("tiling.conventions.")}
        others = roots(imported(path) - {"tiling", "tiling.conventions"} - named) & set(ROOMS) - {room}
    assert room == "flows" or not others


def test_what_numbers_in_files_stand_for_has_no_copies() -> None:
    """It is said once, in a module that imports nothing of ours or of others."""
    source = MODULES["tiling.conventions"]
    assert roots(imported(source)) <= {"__future__", "math", "typing"}
    copies = {name: assigned(path) & assigned(source) for name, path in MODULES.items() if path != source}
    assert not {name: values for name, values in copies.items() if values}


def assigned(path: Path) -> set[str]:
    """Names that a module's own lines give a value."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            names |= {part.id for part in getattr(target, "elts", [target]) if isinstance(part, ast.Name)}
    return names


def test_rooms_inside_the_rooms_import_what_they_may() -> None:
    wrong = []
    for (room, target), names in arrows().items():
        if room not in MAY_IMPORT or target.partition(".")[0] != room.partition(".")[0]:
            continue
        allowed = set(MAY_IMPORT[room])
        if room.partition(".")[2] in FEATURES:
            allowed |= GROUND
        if target in MAY_IMPORT and target not in allowed:
            wrong += sorted(names)
    assert not wrong


def test_only_the_command_line_knows_all_rooms_and_nobody_knows_it() -> None:
    into = {room for (room, target) in arrows() if target in ("flows.cli", "flows.service", "flows.interface")}
    assert into <= {"flows.cli", "flows.__main__"}


def test_other_rooms_come_in_by_the_door() -> None:
    wrong = []
    for (room, target), names in arrows().items():
        if target in DOORS and room.startswith("flows.") and room not in ALL_ROOMS:
            wrong += [name for name in sorted(names) if name.split(" -> ")[1].split(".")[2:3] not in _doors(target)]
    assert not wrong


def _doors(room: str) -> list[list[str]]:
    return [[], *([module] for module in DOORS[room])]


def test_no_room_is_in_a_circle() -> None:
    edges = defaultdict(set)
    for room, target in arrows():
        edges[room].add(target)
    done: set[str] = set()

    def visit(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, " -> ".join((*path, room))
        if room not in done:
            for target in edges[room]:
                visit(target, (*path, room))
            done.add(room)

    for room in list(edges):
        visit(room, ())


def test_no_module_is_in_a_circle() -> None:
    edges = {
        module: {target for target in imported(path, top_level=True) & MODULES.keys() if target != module}
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in edges[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    room, libraries = path.relative_to(ROOT).parts[0], roots(imported(path))
    is_edge = path.name in ("flow.py", "prefect_observer.py", "heartbeats.py") or path.parent.name in ("service", "cli")
    assert "prefect" not in libraries or (room == "flows" and is_edge), "Prefect stands at the edge"
    if room in ("dasnet", "storage") or (room == "tiling" and path.name != "execute.py"):
        assert not {"dask", "distributed"} & libraries
    if room in ("tiling", "storage"):
        assert "torch" not in libraries
    if path.name != "_torchvision.py":
        assert "torchvision" not in libraries, "only _torchvision.py may: beside a CPU build of torch it needs help"
    assert not {"pickle.load", "pickle.loads", "pickle.Unpickler"} & imported(path)
    assert "dask_cuda" not in roots(imported(path, top_level=True))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_checkpoints_are_loaded_as_weights_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)


def test_there_are_modules_to_look_at() -> None:
    assert len(FILES) > 200


def test_no_folder_is_a_drawer_and_no_file_an_essay() -> None:
    folders = defaultdict(list)
    for path in FILES:
        folders[path.parent].append(path)
    assert not {str(folder.relative_to(ROOT)): len(files) for folder, files in folders.items() if len(files) > 18}
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: lines for name, lines in long.items() if lines > 350}


_FILE_NAME = re.compile(r"[\w.-]+\.(json|jsonl|tif|parquet|html|png|zarr|safetensors|npz|csv|log)")


@pytest.mark.parametrize("feature", sorted(FEATURES))
def test_a_file_name_inside_a_directory_is_written_once(feature: str) -> None:
    """In the feature's directory.py: what a directory holds can be read in one place."""
    files = [
        path for path in (ROOT / "flows" / feature).glob("*.py") if path.name not in ("directory.py", "request.py")
    ]
    constants = [
        (path.name, node.value)
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert not [(file, text) for file, text in constants if _FILE_NAME.fullmatch(text)]


def loaded_by(statement: str) -> set[str]:
    """Top names of all modules that a new process has after a statement."""
    listed = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ended = subprocess.run([sys.executable, "-c", listed], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ended.stdout.split())


TOOLS = [name for name in MODULES if name.endswith(".tools") or name == "flows.training.rank"]


@pytest.mark.parametrize("tool", TOOLS)
def test_what_workers_unpickle_reaches_no_prefect_and_what_only_copies_pixels_no_torch(tool: str) -> None:
    loaded = loaded_by(f"import {tool}")
    assert "prefect" not in loaded
    if tool in ("flows.dataset.tools", "flows.inference.tools", "flows.detect.tools"):
        assert "torch" not in loaded


@pytest.mark.parametrize("planning", ["flows.detect.job", "flows.archive.job", "flows.archive.work"])
def test_planning_needs_neither_torch_nor_prefect_nor_a_cluster(planning: str) -> None:
    assert not {"torch", "prefect", "distributed", "zarr", "xarray"} & loaded_by(f"import {planning}")


@pytest.mark.parametrize(
    "job",
    [name for name in MODULES if name.split(".")[0] == "flows" and name.endswith(".run") and name.count(".") == 2],
)
def test_jobs_reach_no_prefect(job: str) -> None:
    assert "prefect" not in loaded_by(f"import {job}")


def test_what_only_looks_is_light() -> None:
    """`dasnet status` and a refusal answer at once: neither waits for the libraries that a run needs."""
    heavy = {"dask", "distributed", "prefect", "torch", "rasterio", "xarray", "zarr"}
    assert not heavy & loaded_by("import flows, flows.cli.main, flows.run.errors, flows.cli.status")


def test_requests_are_light() -> None:
    """They are read before anything is known to be needed, and by a command before it quiets Prefect's log."""
    requests = sorted(name for name in MODULES if name.endswith(".request"))
    assert len(requests) >= 7
    heavy = {"dask", "distributed", "prefect", "torch", "rasterio", "xarray", "zarr"}
    assert not heavy & loaded_by(f"import {', '.join(requests)}")


def test_commands_are_listed_before_anything_is_imported() -> None:
    imported_by_it = loaded_by("import flows.cli.main") - loaded_by("pass") - set(sys.stdlib_module_names)
    assert imported_by_it == {"flows", "click"}

"""Draws `docs/rooms.svg`: the packages with their files and lines, and an arrow where one imports another.

    python -m scripts.rooms

Sizes and arrows come from the code; where a room stands is written here, because no layout that a program finds is as
easy to read. An arrow that others imply is left out. A room that imports one which does not stand below it is an error.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "rooms.svg"

_GAP, _MARGIN, _TITLE = 30, 22, 78
"""Px between two rows, around the rooms of a house, and for its title."""
_NAME, _LINE, _LETTER = 26, 16, 6.9
"""Px: height of a room's name and of a line below it, and width of a letter in the widest of the usual fonts."""
_NARROW = 250
"""Px up to which a room has its size below its purpose, not beside its name."""
_WIDTH = 1220
_COLUMNS = 12
"""Of a house, whatever its width."""
_INK, _GREY, _PAPER = "#1f2933", "#66737f", "#ffffff"
_NAMES = re.compile(r"(flows|dasnet|tiling|storage)(\.\w+)+:\w+")
"""A function that is named in a string and imported when it is called, as the commands name their jobs."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """A package, and where it stands in its house: row from the top, columns from and to."""

    name: str
    purpose: str
    row: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class House:
    """One of the four top-level packages; `x`, `y`, `width` in px."""

    name: str
    purpose: str
    colour: str
    tint: str
    x: int
    y: int
    width: int
    rooms: tuple[Room, ...]
    gap: int = _GAP

    @property
    def height(self) -> int:
        return self._top(1 + max(room.row for room in self.rooms)) - self.gap + _MARGIN

    def levelled(self, height: int) -> House:
        """The same house with its rows farther apart, so that it is as high as its neighbours."""
        return replace(self, gap=self.gap + (height - self.height) // max(room.row for room in self.rooms))

    def across(self, room: Room) -> tuple[float, float]:
        """Left and right of a room."""
        column = (self.width - 2 * _MARGIN + 14) / _COLUMNS
        left = self.x + _MARGIN + room.start * column
        return left, left + (room.stop - room.start) * column - 14

    def described(self, room: Room) -> list[str]:
        """The purpose of a room, in lines that it has place for."""
        left, right = self.across(room)
        return textwrap.wrap(room.purpose, int((right - left - 22) / _LETTER))

    def is_narrow(self, room: Room) -> bool:
        """Whether its size stands on a line of its own."""
        left, right = self.across(room)
        return right - left <= _NARROW

    def _row(self, row: int) -> int:
        """Height of a row."""
        lines = [len(self.described(room)) + self.is_narrow(room) for room in self.rooms if room.row == row]
        return _NAME + max(lines) * _LINE + 14

    def _top(self, row: int) -> int:
        """Of a row, from the top of the house."""
        return _TITLE + sum(self._row(above) + self.gap for above in range(row))

    def box(self, room: Room) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of a room."""
        left, right = self.across(room)
        top = self.y + self._top(room.row)
        return left, top, right, top + self._row(room.row)


def _rooms(*rows: Iterable[tuple[str, int, int, str]]) -> tuple[Room, ...]:
    return tuple(
        Room(name=name, purpose=purpose, row=row, start=start, stop=stop)
        for row, placed in enumerate(rows)
        for name, start, stop, purpose in placed
    )


_FLOWS = House(
    name="flows",
    purpose="jobs, the command line, and Prefect at the edge",
    colour="#2b6cb0",
    tint="#eef4fb",
    x=0,
    y=0,
    width=_WIDTH,
    rooms=_rooms(
        [("cli", 0, 12, "the commands: each reads a request and does its job, or runs it as a flow")],
        [
            ("calibration", 1, 3, "a bundle's threshold, fitted anew"),
            ("comparison", 4, 10, "methods beside each other on one dataset, over seeds"),
        ],
        [
            ("quantisation", 2, 4, "a bundle's integers for CPUs"),
            ("training", 4, 10, "from a dataset to a calibrated bundle"),
        ],
        [("evaluation", 1, 8, "scores on samples and on whole mosaics"), ("figures", 8, 10, "what a network sees")],
        [
            ("archive", 0, 3, "every pair of an archive's dates"),
            ("detect", 3, 6, "one pair of mosaics"),
            ("dataset", 6, 10, "labelled imagery to samples; whether they fit"),
            ("service", 10, 12, "Prefect's server, deployments"),
        ],
        [("inference", 0, 6, "what detect and archive share: plan, stages, verification, products")],
        [("cluster", 0, 10, "where blocks are computed: Dask's client, TLS, one stage")],
        [("run", 0, 12, "what every run is made of: directory, lock, fields, errors, observers")],
    ),
)
_BELOW = _FLOWS.height + 64
_DASNET = House(
    name="dasnet",
    purpose="the network and its science",
    colour="#6b46c1",
    tint="#f4f0fc",
    x=0,
    y=_BELOW,
    width=390,
    rooms=_rooms(
        [("training", 0, 6, "one rank's loop, exact to resume"), ("baselines", 6, 12, "methods without training")],
        [("prediction", 0, 12, "bundles; a block of a series in, its probability out")],
        [("networks", 0, 12, "DASNet, and the networks it is compared with")],
    ),
)
_TILING = House(
    name="tiling",
    purpose="geometry, fan-out",
    colour="#2f855a",
    tint="#edf7f1",
    x=432,
    y=_BELOW,
    width=182,
    rooms=_rooms(
        [("tiling", 0, 12, "blocks, windows, pairs, plan, ledger, fan-out")],
        [("conventions", 0, 12, "what numbers in files stand for")],
    ),
)
_STORAGE = House(
    name="storage",
    purpose="everything that touches bytes at rest",
    colour="#b7791f",
    tint="#fdf6e7",
    x=656,
    y=_BELOW,
    width=_WIDTH - 656,
    rooms=_rooms(
        [("pages", 0, 4, "what a person opens"), ("synthetic", 8, 12, "scenes with known changes")],
        [
            ("products", 0, 4, "what a GIS opens"),
            ("datasets", 4, 8, "labelled samples"),
            ("archives", 8, 12, "dates of an archive"),
        ],
        [("stores", 0, 6, "Zarr of a run"), ("imagery", 6, 12, "inputs: headers, grids, pixels")],
        [("places", 0, 12, "where bytes lie and how they appear: disk, bucket, locks")],
    ),
)
HOUSES = (_FLOWS, *(house.levelled(_STORAGE.height) for house in (_DASNET, _TILING, _STORAGE)))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the code says.

    Attributes:
        sizes: (files, lines) of each room, by its full name; `beside`: modules of a house that are in no room.
        imports: the rooms that a room imports, by full names.
        used: how many files of the first house import the second.
    """

    sizes: Mapping[str, tuple[int, int]]
    beside: Mapping[str, list[str]]
    imports: Mapping[str, set[str]]
    used: Mapping[tuple[str, str], int]


def read_code(root: Path = ROOT) -> Plan:
    """Count files and lines, and find who imports whom.

    Raises:
        ValueError: a package that has no place in the picture, or a place without a package.
    """
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for house in HOUSES
        for path in sorted((root / house.name).rglob("*.py"))
    }
    sizes: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    beside: dict[str, list[str]] = defaultdict(list)
    imports: dict[str, set[str]] = defaultdict(set)
    users: dict[tuple[str, str], set[str]] = defaultdict(set)
    for module, path in modules.items():
        room, house = _room_of(module, modules), module.partition(".")[0]
        if room == house and module != house and not module.endswith("__main__"):
            beside[house].append(module.rpartition(".")[2])
        if room != house and path.name != "__init__.py":
            files, lines = sizes[room]
            sizes[room] = (files + 1, lines + len(path.read_text().splitlines()))
        for name in _imported(ast.parse(path.read_text())):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if not name:
                continue
            other, other_house = _room_of(name, modules), name.partition(".")[0]
            if other_house != house:
                users[house, other_house].add(module)
            if other != room and other_house == house:
                imports[room].add(other)
    placed = {f"{house.name}.{room.name}" for house in HOUSES for room in house.rooms}
    if unlike := placed ^ set(sizes):
        raise ValueError(f"rooms of the code and of {Path(__file__).name} differ: {', '.join(sorted(unlike))}")
    used = {houses: len(files) for houses, files in users.items()}
    return Plan(sizes=dict(sizes), beside=dict(beside), imports=dict(imports), used=used)


def _room_of(module: str, modules: Mapping[str, Path]) -> str:
    """The room that a module belongs to, or its house if it stands beside the rooms."""
    parts = module.split(".")
    if parts[0] == "tiling":
        return "tiling.conventions" if parts[-1] == "conventions" else "tiling.tiling"
    package = ".".join(parts[:2])
    return package if modules[package].name == "__init__.py" else parts[0]


def _imported(tree: ast.AST) -> Iterator[str]:
    """Full names of what a module imports, wherever in it, but for what only its types need."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAMES.fullmatch(node.value):
            yield node.value.partition(":")[0]
        yield from _imported(node)


def draw(plan: Plan) -> str:
    """The picture as SVG.

    Raises:
        ValueError: rooms that import each other in a circle, or one that imports what does not stand below it.
    """
    height = max(house.y + house.height for house in HOUSES)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -16 {_WIDTH + 32} {height + 32}" '
        "font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\" role=\"img\">",
        "<title>The rooms of the code and what they import</title>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.8 L9.5 5 L0 9.2 z" fill="{_GREY}"/></marker></defs>',
        f'<rect x="-16" y="-16" width="{_WIDTH + 32}" height="{height + 32}" rx="14" fill="{_PAPER}"/>',
    ]
    for house in HOUSES:
        parts += _house(house, plan)
    for house in HOUSES[1:]:
        parts += _down_from_flows(house, plan.used["flows", house.name])
    parts += _to_the_conventions()
    return "\n".join([*parts, "</svg>\n"])


def _house(house: House, plan: Plan) -> Iterator[str]:
    yield (
        f'<rect x="{house.x}" y="{house.y}" width="{house.width}" height="{house.height}" rx="12" '
        f'fill="{house.tint}" stroke="{house.colour}" stroke-opacity="0.35"/>'
    )
    x, y = house.x + _MARGIN, house.y + 28
    yield _text(f"{house.name}/", x, y, size=20, colour=house.colour, weight=700)
    yield _text(house.purpose, x, y + 20, size=13, colour=_INK)
    if beside := sorted(plan.beside.get(house.name, [])):
        yield _text(f"and {', '.join(beside)}", x, y + 37, size=11, colour=_GREY)
    imports = {
        room.name: {
            other.name
            for other in house.rooms
            if f"{house.name}.{other.name}" in plan.imports.get(f"{house.name}.{room.name}", ())
        }
        for room in house.rooms
    }
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        raise ValueError(
            f"{house.name}: its rooms import each other in a circle: {' ← '.join(error.args[1])}"
        ) from error
    for room in house.rooms:
        for name in _not_implied(imports, room.name):
            yield _arrow_down(house, room, next(other for other in house.rooms if other.name == name))
    for room in house.rooms:
        yield from _box(house, room, plan.sizes[f"{house.name}.{room.name}"])


def _box(house: House, room: Room, size: tuple[int, int]) -> Iterator[str]:
    left, top, right, bottom = house.box(room)
    yield (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" rx="7" '
        f'fill="{_PAPER}" stroke="{house.colour}" stroke-width="1.3"/>'
    )
    files, lines = size
    # to hundreds, so that the picture need not be drawn anew for every change
    counted = f"{files} file{'s' * (files > 1)}, {max(round(lines, -2), 100):,} lines"
    yield _text(room.name, left + 13, top + 24, size=16, colour=_INK, weight=650)
    described = house.described(room)
    below = top + _NAME + 18
    for number, line in enumerate(described):
        yield _text(line, left + 13, below + _LINE * number, size=13, colour=_INK)
    if house.is_narrow(room):
        yield _text(counted, left + 13, below + _LINE * len(described), size=11.5, colour=_GREY)
    else:
        yield _text(counted, right - 13, top + 24, size=12, colour=_GREY, anchor="end")


def _not_implied(imports: Mapping[str, set[str]], room: str) -> list[str]:
    """What a room imports, without what it reaches by way of another that it imports."""

    def reached(name: str) -> set[str]:
        return imports[name].union(*(reached(other) for other in imports[name]))

    return sorted(imports[room] - set().union(*(reached(other) for other in imports[room])))


def _arrow_down(house: House, upper: Room, lower: Room) -> str:
    (left, _, right, top), (other_left, bottom, other_right, _) = house.box(upper), house.box(lower)
    free = [(max(left, other_left), min(right, other_right))]
    for room in house.rooms:
        if upper.row < room.row < lower.row:
            start, _, stop, _ = house.box(room)
            free = [part for a, b in free for part in ((a, min(b, start)), (max(a, stop), b)) if part[1] > part[0]]
    if upper.row >= lower.row or not free or max(b - a for a, b in free) < 20:
        raise ValueError(
            f"{house.name}/{upper.name} imports {house.name}/{lower.name}, but no arrow leads straight down to it: "
            f"give them other places in {Path(__file__).name}, or mend the import"
        )
    start, stop = max(free, key=lambda part: part[1] - part[0])
    x = (start + stop) / 2
    return _arrow(x, top, x, bottom - 2)


def _down_from_flows(house: House, files: int) -> Iterator[str]:
    x = house.x + house.width / 2
    yield _arrow(x, _FLOWS.height, x, house.y - 2, width=3)
    yield _text(f"imported by {files} files", x + 12, _FLOWS.height + 36, size=12, colour=_GREY)


def _to_the_conventions() -> Iterator[str]:
    _, dasnet, tiling, storage = HOUSES
    left, top, right, bottom = tiling.box(tiling.rooms[-1])
    y = (top + bottom) / 2
    yield _arrow(dasnet.x + dasnet.width, y, left - 2, y)
    yield _arrow(storage.x, y, right + 2, y)


def _arrow(x1: float, y1: float, x2: float, y2: float, *, width: float = 1.5) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{_GREY}" stroke-width="{width}" '
        'marker-end="url(#head)"/>'
    )


def _text(text: str, x: float, y: float, *, size: float, colour: str, weight: int = 400, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def main() -> None:
    PICTURE.write_text(draw(read_code()))
    print(PICTURE)


if __name__ == "__main__":
    main()

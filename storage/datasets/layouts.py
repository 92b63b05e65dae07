"""The layouts that labelled datasets come in, found by looking: folders of pictures, lists, tables of mosaics.

====================================  ============================================================================
``{train,val,test}/{A,B,label}``      CDD, LEVIR-CD: the split is published
``{A,B,label}`` and ``list/*.txt``    as BIT and its followers keep it: a file of names for each split
``{A,B,label}``                       no split published
``CITY/{pair,cm}``                    OSCD: ``pair/img1.png``, ``pair/img2.png``, ``cm/cm.png``
a ``.csv`` file                       one scene a row: name, before, after, label (or label_before and label_after),
                                      and if known split and place; for whole mosaics of many dates
====================================  ============================================================================
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from storage.datasets.scenes import SceneFiles
from storage.errors import InputError
from tiling.conventions import SPLITS

DATES = (("A", "B"), ("T1", "T2"), ("t1", "t2"), ("before", "after"))
LABELS = ("label", "labels", "OUT", "out", "mask", "masks", "gt", "GT")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_COLUMNS = ("name", "before", "after", "label", "label_before", "label_after", "split", "place")
_LISTED = 50


def find_scenes(root: Path) -> list[SceneFiles]:
    """All scenes of a folder or a table, in the order of their names.

    Raises:
        InputError: no such folder, no layout that is known, empty folders, or files without their partners (all of
            them are listed).
    """
    if root.is_file() and root.suffix.lower() == ".csv":
        return _from_table(root)
    if not root.is_dir():
        raise InputError(f"{root} is neither a folder of a dataset nor a .csv table of scenes")
    splits = {
        child: _SPLIT_FOLDERS[child.name.lower()]
        for child in sorted(root.iterdir())
        if child.name.lower() in _SPLIT_FOLDERS
    }
    if splits:
        scenes = [scene for folder, split in splits.items() for scene in _pictures(folder, split=split)]
    elif _folders(root) is not None:
        scenes = _listed(root) if (root / "list").is_dir() else _pictures(root)
    elif cities := sorted(root.glob("*/pair/img1.png")):
        scenes = [_city(path.parent.parent) for path in cities]
    else:
        raise InputError(
            f"{root} has no layout that is known: expected train/val/test folders with A, B and label (or OUT, mask), "
            "or A, B and label with or without list/*.txt, or OSCD's CITY/pair and CITY/cm; it has "
            f"{', '.join(sorted(child.name for child in root.iterdir())[:10]) or 'nothing'}"
        )
    twice = [name for name, count in Counter(scene.name for scene in scenes).items() if count > 1]
    if twice:
        raise InputError(f"{root}: {len(twice)} names stand for two scenes: {_list(twice)}")
    return scenes


def _folders(root: Path) -> tuple[Path, Path, Path] | None:
    for first, second in DATES:
        if (root / first).is_dir() and (root / second).is_dir():
            for label in LABELS:
                if (root / label).is_dir():
                    return root / first, root / second, root / label
            raise InputError(f"{root} has {first} and {second} but none of {', '.join(LABELS)}")
    return None


def _pictures(root: Path, *, split: str | None = None) -> list[SceneFiles]:
    folders = _folders(root)
    if folders is None:
        raise InputError(
            f"{root} has no pair of folders ({', '.join('/'.join(pair) for pair in DATES)}) with a folder of labels"
        )
    by_name = [_by_name(folder) for folder in folders]
    missing = [
        f"{folder / name} has no file (its partner is {next(files[name] for files in by_name if name in files)})"
        for name in sorted(set().union(*by_name))
        for folder, files in zip(folders, by_name, strict=True)
        if name not in files
    ]
    if missing:
        raise InputError(f"{root}: {len(missing)} files lack a partner:\n  {_list(missing, separator=chr(10) + '  ')}")
    before, after, label = by_name
    return [
        SceneFiles(
            name=f"{split}/{name}" if split else name,
            before=str(before[name]),
            after=str(after[name]),
            label=str(label[name]),
            split=split,
        )
        for name in sorted(before)
    ]


def _by_name(folder: Path) -> dict[str, Path]:
    pictures: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in pictures:
            raise InputError(f"{folder} has two files of one name: {pictures[path.stem].name} and {path.name}")
        pictures[path.stem] = path
    if not pictures:
        raise InputError(f"{folder} has no picture ({', '.join(SUFFIXES)})")
    return pictures


def _listed(root: Path) -> list[SceneFiles]:
    scenes = {scene.name: scene for scene in _pictures(root)}
    splits: dict[str, str] = {}
    for file in sorted((root / "list").glob("*.txt")):
        split = _SPLIT_FOLDERS.get(file.stem.lower())
        if split is None:
            continue  # lists of other things: demo.txt, trainval.txt
        names = [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
        stems = [Path(name).stem if Path(name).suffix.lower() in SUFFIXES else name for name in names]
        absent = [name for name, stem in zip(names, stems, strict=True) if stem not in scenes]
        if absent:
            raise InputError(f"{file} names {len(absent)} files that are not there: {_list(absent)}")
        for stem in stems:
            if splits.setdefault(stem, split) != split:
                raise InputError(f"{stem} is in two splits, {splits[stem]} and {split} ({file})")
    if not splits:
        raise InputError(f"{root / 'list'} has no train.txt, val.txt or test.txt with names in it")
    return [replace(scenes[name], split=split) for name, split in sorted(splits.items(), key=lambda item: item[0])]


def _city(folder: Path) -> SceneFiles:
    parts = {
        "before": folder / "pair" / "img1.png",
        "after": folder / "pair" / "img2.png",
        "label": folder / "cm" / "cm.png",
    }
    missing = [str(path) for path in parts.values() if not path.is_file()]
    if missing:
        raise InputError(f"{folder} lacks {_list(missing)}")
    return SceneFiles(name=folder.name, **{name: str(path) for name, path in parts.items()})


def _from_table(path: Path) -> list[SceneFiles]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        unknown = sorted(set(columns) - set(_COLUMNS))
        if unknown or not {"before", "after"} <= set(columns):
            raise InputError(f"{path} has the columns {', '.join(columns) or 'none'}; known are {', '.join(_COLUMNS)}")
        rows = list(reader)
    if not rows:
        raise InputError(f"{path} lists no scene")
    scenes = []
    for number, row in enumerate(rows, start=2):
        cells = {name: value.strip() for name, value in row.items() if name in _COLUMNS and value and value.strip()}
        for name in ("before", "after", "label", "label_before", "label_after"):
            if name in cells and "://" not in cells[name]:
                cells[name] = str(path.parent / cells[name])
        split = cells.get("split")
        if split is not None and split not in SPLITS:
            raise InputError(f"{path}, line {number}: split {split!r} is none of {', '.join(SPLITS)}")
        if not {"before", "after"} <= set(cells):
            raise InputError(f"{path}, line {number}: needs before and after")
        scenes.append(SceneFiles(**{"name": f"scene{number - 1}", **cells}))
    twice = [name for name, count in Counter(scene.name for scene in scenes).items() if count > 1]
    if twice:
        raise InputError(f"{path}: {len(twice)} names stand for two scenes: {_list(twice)}")
    return scenes


def _list(items: Iterable[str], *, separator: str = ", ") -> str:
    items = list(items)
    more = f"{separator}… and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return separator.join(items[:_LISTED]) + more

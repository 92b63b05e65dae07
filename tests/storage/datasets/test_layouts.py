"""Every layout is found by looking; what is missing is listed, all of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.datasets.layouts import find_scenes
from storage.errors import InputError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(path)


def pairs(
    root: Path, names: list[str], *, folders: tuple[str, ...] = ("A", "B", "label"), suffix: str = ".png"
) -> None:
    for folder in folders:
        for name in names:
            picture(root / folder / f"{name}{suffix}")


@pytest.mark.parametrize("label", ["OUT", "label", "mask"])
def test_published_splits(tmp_path: Path, label: str) -> None:
    for split, names in (("train", ["a", "b"]), ("val", ["a"]), ("test", ["c"])):
        pairs(tmp_path / split, names, folders=("A", "B", label), suffix=".jpg")
    scenes = find_scenes(tmp_path)
    assert [(scene.name, scene.split) for scene in scenes] == [
        ("test/c", "test"),
        ("train/a", "train"),
        ("train/b", "train"),
        ("val/a", "val"),
    ]
    assert scenes[0].label == str(tmp_path / "test" / label / "c.jpg")


def test_lists_of_names_with_and_without_suffix(tmp_path: Path) -> None:
    pairs(tmp_path, ["a", "b", "c", "spare"])
    (tmp_path / "list").mkdir()
    (tmp_path / "list/train.txt").write_text("a.png\nb.png\n\n")
    (tmp_path / "list/val.txt").write_text("c\n")
    (tmp_path / "list/demo.txt").write_text("spare.png\n")
    assert {scene.name: scene.split for scene in find_scenes(tmp_path)} == {"a": "train", "b": "train", "c": "val"}


def test_no_split_published(tmp_path: Path) -> None:
    pairs(tmp_path, ["x", "y"], folders=("before", "after", "gt"))
    assert [(scene.name, scene.split) for scene in find_scenes(tmp_path)] == [("x", None), ("y", None)]


def test_oscd(tmp_path: Path) -> None:
    for city in ("paris", "rio"):
        for name in ("pair/img1.png", "pair/img2.png", "cm/cm.png"):
            picture(tmp_path / city / name)
    assert [scene.name for scene in find_scenes(tmp_path)] == ["paris", "rio"]


def test_a_table_of_mosaics_with_paths_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "scenes.csv").write_text(
        "name,before,after,label,label_before,label_after,split,place\n"
        "one,a.tif,b.tif,l.geojson,,,train,here\n"
        "two,a.tif,c.tif,,ma.tif,mc.tif,test,there\n"
    )
    one, two = find_scenes(tmp_path / "scenes.csv")
    assert one.before == str(tmp_path / "a.tif") and one.label == str(tmp_path / "l.geojson") and one.split == "train"
    assert two.label is None and two.label_after == str(tmp_path / "mc.tif") and two.place == "there"


def test_all_missing_partners_are_listed(tmp_path: Path) -> None:
    pairs(tmp_path, ["a", "b", "c"])
    (tmp_path / "B" / "a.png").unlink()
    (tmp_path / "label" / "c.png").unlink()
    with pytest.raises(InputError, match="2 files lack a partner") as refused:
        find_scenes(tmp_path)
    assert str(tmp_path / "B/a") in str(refused.value) and str(tmp_path / "label/c") in str(refused.value)


def test_a_list_that_names_absent_files_is_refused(tmp_path: Path) -> None:
    pairs(tmp_path, ["a"])
    (tmp_path / "list").mkdir()
    (tmp_path / "list/train.txt").write_text("a.png\nghost.png\n")
    with pytest.raises(InputError, match=r"train\.txt names 1 files that are not there: ghost\.png"):
        find_scenes(tmp_path)


def test_one_name_in_two_splits_is_refused(tmp_path: Path) -> None:
    pairs(tmp_path, ["a"])
    (tmp_path / "list").mkdir()
    (tmp_path / "list/train.txt").write_text("a.png\n")
    (tmp_path / "list/test.txt").write_text("a.png\n")
    with pytest.raises(InputError, match="a is in two splits"):
        find_scenes(tmp_path)


def test_empty_folders_and_unknown_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no layout that is known.*nothing"):
        find_scenes(tmp_path)
    for folder in ("A", "B", "label"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match="has no picture"):
        find_scenes(tmp_path)
    with pytest.raises(InputError, match="neither a folder"):
        find_scenes(tmp_path / "nowhere")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    pairs(tmp_path, ["a"])
    picture(tmp_path / "A" / "a.jpg")
    with pytest.raises(InputError, match=r"two files of one name: a\.jpg and a\.png"):
        find_scenes(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("before,after,label\n", "lists no scene"),
        ("first,second\nx,y\n", "has the columns first, second"),
        ("before,after,label,split\na,b,c,holdout\n", "line 2: split 'holdout'"),
        ("before,after,label\na,,c\n", "line 2: needs before and after"),
        ("before,after\na,b\n", "needs one label"),
        ("before,after,label,label_before\na,b,c,d\n", "needs one label"),
        ("name,before,after,label\nx,a,b,c\nx,a,b,c\n", "1 names stand for two scenes: x"),
    ],
)
def test_tables_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scenes.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        find_scenes(tmp_path / "scenes.csv")

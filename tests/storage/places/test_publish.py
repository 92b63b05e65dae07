"""Files appear complete or not at all; directories are claimed, not assumed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from storage.errors import InputError
from storage.places.publish import claim_directory, publish, require_free_space, write_json_atomically


def test_the_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with publish(path) as draft:
        draft.write_text("half")
        assert not path.exists()
        draft.write_text("whole")
    assert path.read_text() == "whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("where", ["writing", "verifying"])
def test_a_failure_leaves_what_was_there(tmp_path: Path, where: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def verify(draft: Path) -> None:
        raise OSError("scripted")

    with pytest.raises(OSError, match="scripted"), publish(path, verify=verify) as draft:
        draft.write_text("new")
        if where == "writing":
            raise OSError("scripted")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_json_is_replaced_in_one_step(tmp_path: Path) -> None:
    write_json_atomically(tmp_path / "a.json", {"a": 1})
    write_json_atomically(tmp_path / "a.json", {"a": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 2}


def test_directories_that_can_be_claimed(tmp_path: Path) -> None:
    claim_directory(tmp_path / "new" / "deep")
    claim_directory(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "run.zarr").mkdir()
    claim_directory(tmp_path)


def test_directories_that_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        claim_directory(tmp_path / "file")
    with pytest.raises(InputError, match="is a file"):
        claim_directory(tmp_path / "file" / "below")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(InputError, match=r"not a run of this program.*cat\.jpg"):
        claim_directory(tmp_path / "photos")


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    place = Path("/proc/self") if os.geteuid() == 0 else tmp_path
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        claim_directory(place / "run")
    tmp_path.chmod(0o700)


def test_too_little_space_names_both_numbers(tmp_path: Path) -> None:
    require_free_space(tmp_path, 1)
    with pytest.raises(InputError, match=r"needs 1000000000\.00 GB, but only"):
        require_free_space(tmp_path, 10**18)

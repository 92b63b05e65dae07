"""Homes that cannot be had, proxies that catch loopback, and first commands at once: in processes as a user has."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.synthetic.pair import SyntheticPair, synthesize

_OF_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def environment(**changes: str | None) -> dict[str, str]:
    """This process's, without a home of Prefect's and without proxies; None takes a variable away."""
    dropped = {"PREFECT_HOME", *_OF_PROXIES, *map(str.upper, _OF_PROXIES)} | {
        n for n, v in changes.items() if v is None
    }
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {name: value for name, value in changes.items() if value is not None}


def command(*arguments: object, **changes: str | None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows", *map(str, arguments)],
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SyntheticPair:
    """One block."""
    return synthesize(tmp_path_factory.mktemp("scene"), height=128, width=128, seed=5)


@contextmanager
def file_system(place: Path, *options: str) -> Iterator[Path]:
    """A small file system in memory."""
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)], check=False)
    if made.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[list[tuple[dict[str, str], str]]]:
    """Variables of the environment, and the words with which they are refused."""
    (tmp_path / "file").write_text("")
    with (
        file_system(tmp_path / "full", "size=1m") as full,
        file_system(tmp_path / "read-only", "ro") as read_only,
    ):
        yield [
            ({"HOME": "/proc/nope"}, "No such file or directory"),
            ({"HOME": str(tmp_path / "file")}, "Not a directory"),
            ({"PREFECT_HOME": str(tmp_path / "file")}, "is a file"),
            ({"HOME": str(full)}, "No space left on device"),
            ({"HOME": str(read_only)}, "Read-only file system"),
        ]


def test_who_needs_a_home_is_told_in_a_line(
    homes: list[tuple[dict[str, str], str]], pair: SyntheticPair, tmp_path: Path
) -> None:
    for changes, words in homes:
        for arguments in (
            ("detect", pair.before, pair.after, "--bundle", "cva", "--output", tmp_path / "out", "--ui"),
            ("server", "--port", "4397"),
        ):
            started = time.monotonic()
            process = command(*arguments, **changes)
            out, err = process.communicate(timeout=60)
            assert process.returncode == 2, err
            assert time.monotonic() - started < 30
            assert not out and len(err.splitlines()) == 1, err
            assert err.startswith("refused: ") and words in err and "set PREFECT_HOME" in err
            assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_who_needs_none_works_without(
    homes: list[tuple[dict[str, str], str]], pair: SyntheticPair, tmp_path: Path
) -> None:
    for number, changes in enumerate([{"HOME": None}, *(changes for changes, _ in homes)]):
        whole = ("detect", pair.before, pair.after, "--bundle", "cva", "--output", tmp_path / str(number))
        for arguments in ((*whole, "--dry-run"),) if number else (whole, ("status", tmp_path / "0")):
            process = command(*arguments, **changes)
            _, err = process.communicate(timeout=240)
            assert process.returncode == 0, err
            assert "Traceback" not in err and "Warning" not in err


def test_first_commands_at_once_and_a_proxy_that_catches_all(pair: SyntheticPair, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    nobody = "http://127.0.0.1:9"
    processes = [
        command(
            *("detect", pair.before, pair.after, "--bundle", "cva", "--output", tmp_path / str(number), "--ui"),
            HOME=str(tmp_path / "home"),
            http_proxy=nobody,
            HTTPS_PROXY=nobody,
            all_proxy=nobody,
        )
        for number in range(2)
    ]
    for process in processes:
        _, err = process.communicate(timeout=500)
        assert process.returncode == 0, err
        assert "embedded server" in err

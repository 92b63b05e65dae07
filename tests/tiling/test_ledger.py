"""The ledger survives what a crash leaves behind."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.ledger import Entry, Ledger


def done(block: str, **facts: object) -> Entry:
    return Entry(block=block, state="done", facts=facts)


def test_what_was_appended_is_found_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "infer")
    ledger.append([done("a", digest="1"), Entry(block="b", state="failed", facts={"error": "boom"})])
    for reader in (ledger, Ledger(tmp_path, "infer")):
        assert reader.state("a") == "done"
        assert reader.state("b") == "failed"
        assert reader.state("never heard of") == "pending"
        assert (reader.count("done"), reader.count("failed"), reader.count("pending")) == (1, 1, 0)
        assert reader.entry("a").facts["digest"] == "1"
        assert [entry.block for entry in reader.entries("failed")] == ["b"]


def test_the_last_line_about_a_block_holds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "infer")
    ledger.append([Entry(block="a", state="failed", facts={"error": "boom"})])
    ledger.forget(["a"], reason="--retry-failed")
    assert ledger.state("a") == "pending"
    ledger.append([done("a", digest="2")])
    again = Ledger(tmp_path, "infer")
    assert again.state("a") == "done"
    assert again.count("failed") == 0
    assert [entry.facts["digest"] for entry in again.entries("done")] == ["2"]


@given(cut=st.integers(min_value=1, max_value=40))
def test_a_torn_last_line_costs_its_block_alone(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    Ledger(folder, "infer").append([done("a", digest="1"), done("b", digest="2")])
    path = folder / "infer.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    ledger = Ledger(folder, "infer")
    assert ledger.state("a") == "done"
    assert ledger.state("b") == "pending"
    ledger.append([done("b", digest="3"), done("c", digest="4")])
    again = Ledger(folder, "infer")
    assert [again.state(block) for block in "abc"] == ["done"] * 3
    assert [again.entry(block).facts["digest"] for block in "abc"] == ["1", "3", "4"]
    assert again.unreadable_lines <= 1


def test_an_unreadable_line_in_the_middle_costs_its_block_alone(tmp_path: Path) -> None:
    Ledger(tmp_path, "infer").append([done("a"), done("b"), done("c")])
    path = tmp_path / "infer.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00" * 20 + b"\n" + lines[2])
    ledger = Ledger(tmp_path, "infer")
    assert [ledger.state(block) for block in "abc"] == ["done", "pending", "done"]
    assert ledger.unreadable_lines == 1

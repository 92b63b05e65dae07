"""Items that follow each other on one worker: by themselves, and on a real cluster with scripted faults."""

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster, get_worker
from hypothesis import given
from hypothesis import strategies as st

from flows.cluster.connect import closed_in_time
from tiling.chaining import Chaining, Chains
from tiling.execute import BoundedRunner, Equipment, Outcome

Item = dict[str, Any]


def link(item: Item, chain: str, following: Sequence[Item]) -> Item:
    return {**item, "chain": chain, "following": [other["number"] for other in following]}


def chaining(busy: int = 1) -> Chaining:
    return Chaining(group=lambda item: item["group"], link=link, busy=busy)


def items(sizes: Sequence[int]) -> list[tuple[str, Item]]:
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    return [(str(number), {"number": number, "group": group}) for number, group in enumerate(groups)]


@given(st.lists(st.integers(1, 9), max_size=6), st.integers(1, 4), st.integers(1, 3), st.randoms(use_true_random=False))
def test_every_item_comes_once_and_none_before_one_of_its_chain_has_ended(
    sizes: list[int], busy: int, workers: int, random: Any
) -> None:
    chains, running, seen = Chains(items(sizes), chaining(busy)), [], []
    while True:
        while len(running) < 3 * busy * workers:
            chain = chains.next() or chains.half(running=len(running), workers=workers)
            if chain is None:
                break
            assert chain not in running
            seen.append(chain.waiting.popleft()[0])
            running.append(chain)
        lanes = busy * workers
        assert len(running) >= min(lanes, len(running) + sum(len(chain.waiting) for chain in running))
        if not running:
            break
        chains.go_on(running.pop(random.randrange(len(running))), "tcp://here")
    assert sorted(seen, key=int) == [name for name, _ in items(sizes)]


def test_a_chain_is_cut_in_halves_that_lie_together_and_an_almost_finished_one_only_for_an_idle_lane() -> None:
    chains = Chains(items([9]), chaining())
    first = chains.next()
    assert first is not None
    first.waiting.popleft()
    half = chains.half(running=1, workers=1)
    assert half is not None
    assert [name for name, _ in first.waiting] == ["1", "2", "3", "4"]
    assert [name for name, _ in half.waiting] == ["5", "6", "7", "8"]
    assert chains.half(running=2, workers=1) is None
    for _ in range(3):
        half.waiting.popleft()
        first.waiting.popleft()
    assert chains.half(running=1, workers=1) is None
    last = chains.half(running=0, workers=1)
    assert last is not None and [name for name, _ in last.waiting] in (["4"], ["8"])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with dask.config.set({"distributed.scheduler.allowed-failures": 1, "distributed.scheduler.work-stealing": False}):
        cluster = LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None)
        with closed_in_time(cluster), Client(cluster) as connected:
            yield connected


class Tracks:
    """Says where and with what each item came; one fails always, one kills its worker once."""

    def __init__(self, folder: Path, failing: int, killing: int) -> None:
        self._folder, self._failing, self._killing = folder, failing, killing

    def __call__(self, item: Item) -> Item:
        if item["number"] == self._failing:
            raise OSError("no pixels")
        once = self._folder / "killed"
        if item["number"] == self._killing and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {**item, "worker": get_worker().address}


def run(client: Client, folder: Path, sizes: Sequence[int], *, failing: int = -1, killing: int = -1) -> list[Outcome]:
    name = folder.name
    client.register_plugin(Equipment(name, lambda: Tracks(folder, failing, killing)), name=name)
    try:
        runner = BoundedRunner(
            client=client,
            equipment=name,
            items=items(sizes),
            in_flight=4,
            per_worker=2,
            retries=1,
            chaining=chaining(),
        )
        return list(runner.advance(10**6))
    finally:
        client.unregister_worker_plugin(name)


def test_a_chain_stays_on_its_worker_in_its_order_and_each_item_knows_what_follows(
    client: Client, tmp_path: Path
) -> None:
    outcomes = run(client, tmp_path, [6] * 6)
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    assert sorted(result["number"] for result in results) == list(range(36))
    by_chain: dict[str, list[Any]] = defaultdict(list)
    for result in results:
        by_chain[result["chain"]].append(result)
    for chain in by_chain.values():
        assert len({result["worker"] for result in chain}) == 1
        numbers = [result["number"] for result in chain]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        for before, after in pairwise(chain):
            # whoever cuts a chain takes away from its end
            assert after["number"] == before["following"][0]
            assert after["following"] == before["following"][1 : 1 + len(after["following"])]


def test_an_item_that_fails_is_tried_again_by_itself_and_the_rest_of_its_chain_goes_on(
    client: Client, tmp_path: Path
) -> None:
    outcomes = {outcome.name: outcome for outcome in run(client, tmp_path, [6, 6], failing=2)}
    assert [name for name, outcome in outcomes.items() if outcome.error] == ["2"]
    assert (outcomes["2"].error, outcomes["2"].attempts) == ("OSError: no pixels", 2)
    assert len(outcomes) == 12


def test_a_chain_whose_worker_is_killed_goes_on_elsewhere(client: Client, tmp_path: Path) -> None:
    outcomes = run(client, tmp_path, [8, 8, 8], killing=11)
    assert (tmp_path / "killed").exists()
    assert Counter(outcome.name for outcome in outcomes) == Counter(str(number) for number in range(24))
    assert all(outcome.error is None for outcome in outcomes)

"""The bounded fan-out on a real cluster, with scripted faults."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from flows.cluster.connect import closed_in_time
from tiling import execute
from tiling.errors import ClusterLostError, UnlikeWorkerError
from tiling.execute import BoundedRunner, Equipment, Outcome, use_equipment, workers_of


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        cluster = LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None)
        with closed_in_time(cluster), Client(cluster) as connected:
            yield connected


class Square:
    """Counts its makings in `folder`; item (number, fault) gives the number's square, after the fault."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / f"made-{os.getpid()}-{time.time_ns()}").touch()

    def __call__(self, item: tuple[int, str]) -> dict[str, Any]:
        number, fault = item
        seen = len(list(self.folder.glob(f"try-{number}-*")))
        (self.folder / f"try-{number}-{time.time_ns()}").touch()
        if fault == "always" or (fault == "twice" and seen < 2):
            raise OSError(f"no pixels for {number}")
        if fault == "kill" or (fault == "kill once" and seen < 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": number**2}


def run(client: Client, folder: Path, items: list[tuple[int, str]], **options: Any) -> dict[str, Outcome]:
    name = folder.name
    client.register_plugin(Equipment(name, lambda: Square(folder)), name=name)
    try:
        runner = BoundedRunner(
            client=client,
            equipment=name,
            items=((str(item[0]), item) for item in items),
            **{"in_flight": 4, **options},
        )
        return {outcome.name: outcome for outcome in runner.advance(10**6)}
    finally:
        client.unregister_worker_plugin(name)


def test_every_item_ends_once_and_the_tool_is_made_once_a_worker(client: Client, tmp_path: Path) -> None:
    outcomes = run(client, tmp_path, [(number, "") for number in range(40)])
    assert {name: outcome.result for name, outcome in outcomes.items()} == {
        str(number): {"square": number**2} for number in range(40)
    }
    assert len(list(tmp_path.glob("made-*"))) == 2


def test_a_passing_fault_is_retried_and_a_lasting_one_is_quarantined(client: Client, tmp_path: Path) -> None:
    outcomes = run(client, tmp_path, [(0, ""), (1, "twice"), (2, "always"), (3, "")], retries=2)
    assert outcomes["1"].result == {"square": 1}
    assert outcomes["1"].attempts == 3
    assert outcomes["2"].result is None
    assert outcomes["2"].error == "OSError: no pixels for 2"
    assert outcomes["0"].result is not None
    assert outcomes["3"].result is not None


def test_no_more_than_in_flight_are_submitted(client: Client, tmp_path: Path) -> None:
    consumed = []

    def items() -> Iterator[tuple[str, tuple[int, str]]]:
        for number in range(50):
            consumed.append(number)
            yield str(number), (number, "")

    client.register_plugin(Equipment("bounded", lambda: Square(tmp_path)), name="bounded")
    runner = BoundedRunner(client=client, equipment="bounded", items=items(), in_flight=3)
    for ended, _ in enumerate(runner.advance(20), start=1):
        assert len(consumed) <= ended + 3
    assert len(list(runner.advance(100))) == 30
    client.unregister_worker_plugin("bounded")


def test_a_killed_worker_costs_time_but_no_item(client: Client, tmp_path: Path) -> None:
    outcomes = run(client, tmp_path, [(number, "kill once" if number == 5 else "") for number in range(20)])
    assert sorted(int(name) for name, outcome in outcomes.items() if outcome.result) == list(range(20))


def test_an_item_that_kills_workers_is_quarantined_alone(client: Client, tmp_path: Path) -> None:
    outcomes = run(client, tmp_path, [(number, "kill" if number == 3 else "") for number in range(12)])
    assert [name for name, outcome in outcomes.items() if outcome.error] == ["3"]
    assert "KilledWorker" in str(outcomes["3"].error)


class Calculator:
    """A tool that says how it computes."""

    def __init__(self, device: str) -> None:
        self._device = device

    def __call__(self, item: int) -> dict[str, Any]:
        return {"device": self._device}

    def describe(self) -> dict[str, Any]:
        return {"device": self._device}


def test_a_worker_that_computes_otherwise_ends_the_run_and_its_block_is_not_taken(client: Client) -> None:
    client.register_plugin(Equipment("calculator", lambda: Calculator("cuda")), name="calculator")
    items = [(str(number), number) for number in range(3)]
    alike = BoundedRunner(
        client=client, equipment="calculator", items=items, in_flight=2, arithmetic={"device": "cuda"}
    )
    assert [outcome.result for outcome in alike.advance(3)] == [{"device": "cuda"}] * 3
    unlike = BoundedRunner(
        client=client, equipment="calculator", items=items, in_flight=2, arithmetic={"device": "cpu"}
    )
    with pytest.raises(UnlikeWorkerError, match=r"joined, but computes otherwise .*'cuda'.*, not .*'cpu'"):
        list(unlike.advance(3))
    unlike.cancel()
    client.unregister_worker_plugin("calculator")


class Unmakeable:
    """Makes a tool on all workers but those that join while a file is there."""

    def __init__(self, obstacle: Path) -> None:
        self._obstacle = obstacle

    def __call__(self) -> Calculator:
        if self._obstacle.exists():
            raise FileNotFoundError("no such bundle here")
        return Calculator("cuda")


def test_a_worker_that_joins_and_cannot_make_its_tool_is_named_with_its_reason(tmp_path: Path) -> None:
    """Dask itself lets it take blocks, and says nothing."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as growing:
        growing.register_plugin(Equipment("unmakeable", Unmakeable(tmp_path / "obstacle")), name="unmakeable")
        (tmp_path / "obstacle").touch()
        (first,) = workers_of(growing)
        cluster.scale(2)
        growing.wait_for_workers(2, timeout=120)
        (joined,) = set(workers_of(growing)) - {first}
        growing.submit(use_equipment, "unmakeable", 1, workers=[first], pure=False).result()
        with pytest.raises(UnlikeWorkerError, match=r"could not make its tool: FileNotFoundError: no such bundle here"):
            growing.submit(use_equipment, "unmakeable", 1, workers=[joined], pure=False).result()


def test_workers_are_known_also_while_the_client_refreshes_what_it_knows_of_the_scheduler(client: Client) -> None:
    async def refresh() -> None:
        await client._update_scheduler_info()  # what it does every two seconds, without workers

    stop = threading.Event()

    def refresh_on() -> None:
        while not stop.is_set():
            client.sync(refresh)

    refreshing = threading.Thread(target=refresh_on)
    refreshing.start()
    try:
        assert all(workers_of(client) for _ in range(300))
    finally:
        stop.set()
        refreshing.join()


def test_a_cluster_that_grows_is_given_more_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_COUNTING_S", 0.0)
    taken: list[int] = []

    def items() -> Iterator[tuple[str, tuple[int, str]]]:
        for number in range(60):
            taken.append(number)
            yield str(number), (number, "")

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as growing:
        growing.register_plugin(Equipment("growing", lambda: Square(tmp_path)), name="growing")
        runner = BoundedRunner(client=growing, equipment="growing", items=items(), in_flight=3, per_worker=3)
        list(runner.advance(5))
        assert len(taken) <= 5 + 3
        cluster.scale(2)
        growing.wait_for_workers(2, timeout=120)
        list(runner.advance(5))
        assert 10 + 3 < len(taken) <= 10 + 6
        assert len(list(runner.advance(100))) == 50


def test_a_cluster_without_workers_is_lost_not_waited_for(tmp_path: Path) -> None:
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster, Client(cluster) as lonely:
        runner = BoundedRunner(client=lonely, equipment="none", items=[("a", 1)], in_flight=1, patience_s=3)
        with pytest.raises(ClusterLostError, match="no worker for 3 s"):
            list(runner.advance(1))
        runner.cancel()

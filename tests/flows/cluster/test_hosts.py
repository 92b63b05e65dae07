"""Workers on hosts of their own, joined by TLS; one of them is cut off. The hosts are network namespaces."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.host_cut import Cluster, NotPermittedError, detection, network, probability_sha256
from storage.synthetic.pair import SyntheticPair

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BLOCK = 128


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers, three hosts in all."""
    try:
        with network("one", "two") as hosts:
            started = Cluster(hosts, tmp_path_factory.mktemp("cluster"))
            with started.running():
                yield started
    except NotPermittedError as error:
        pytest.skip(f"no network namespaces here: {error}")


def test_a_host_cut_off_costs_only_its_blocks_in_flight(cluster: Cluster, pair: SyntheticPair, run: Path) -> None:
    """And the bytes are those of a run on this machine alone, with other blocks: nothing depends on who computed."""
    moments: list[float] = []

    def cut() -> None:
        cluster.network.cut("two")
        moments.append(time.time())

    disturbed = detection(
        cluster, pair.before, pair.after, cluster.folder / "disturbed", block=BLOCK, pause_s=0.5, cut=cut
    )
    assert disturbed.sha256 == probability_sha256(run)
    assert disturbed.blocks == 6 * 8
    hosts = {path.name.partition("-")[0] for path in (cluster.folder / "disturbed-calls").iterdir()}
    assert hosts == {"one", "two"}
    # a worker of two threads holds two blocks, and one more that it was sent when it had none to spare
    assert 1 <= disturbed.begun - disturbed.blocks <= 3
    assert cluster.removed_after(moments[0]) is not None

    cluster.network.mend("two")
    whole = detection(cluster, pair.before, pair.after, cluster.folder / "mended", block=BLOCK, pause_s=0.1)
    assert whole.sha256 == disturbed.sha256
    assert whole.begun == whole.blocks
    hosts = {path.name.partition("-")[0] for path in (cluster.folder / "mended-calls").iterdir()}
    assert hosts == {"one", "two"}, "a host that is back takes part"

    silent = detection(
        cluster,
        *(pair.before, pair.after, cluster.folder / "silent"),
        block=BLOCK,
        pause_s=0.0,
        cut=lambda: cluster.network.cut("two"),
        share=0.0,
    )
    assert silent.sha256 == disturbed.sha256, "a host that went silent just before a run does not stop it"

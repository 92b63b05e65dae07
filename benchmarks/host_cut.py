"""One of two worker hosts is cut off in the middle of a run over TLS: blocks computed again, time lost.

The hosts are network namespaces with addresses of their own on one bridge, and share the disk; needs root, Linux and
iproute2.

python -m benchmarks.host_cut [--side 1536] [--block 128]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import rasterio
from prefect import flow

from benchmarks.common import machine, probability_sha256, scene
from flows.cluster.certificates import Certificates, make_certificates
from flows.detect.flow import run_detection
from flows.detect.job import resolve
from flows.detect.request import DetectRequest
from flows.inference.predictor import predictor_factory
from flows.run.directory import RunDirectory
from tiling.protocols import Predictor

ROOT = Path(__file__).resolve().parent.parent
_PORT = 8786
_PATIENCE_S = 240.0


class NotPermittedError(RuntimeError):
    """This machine does not let us make network namespaces; the message says why."""


def _ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise NotPermittedError(f"no command `ip` (Debian: iproute2): {error}") from error
    except subprocess.CalledProcessError as error:
        raise NotPermittedError(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from error


@dataclass(frozen=True)
class Network:
    """Hosts ``head``, ``one``, ``two``, … each in a namespace with an address of its own."""

    prefix: str
    addresses: dict[str, str]

    def on(self, host: str, *command: object) -> list[str]:
        """The command line that runs `command` on a host."""
        return ["ip", "netns", "exec", self.prefix + host, *map(str, command)]

    def cut(self, host: str) -> None:
        """Pull the cable of a host: nothing reaches it, nothing comes from it, nobody is told."""
        _ip("-n", self.prefix + "head", "link", "set", "to-" + host, "down")

    def mend(self, host: str) -> None:
        _ip("-n", self.prefix + "head", "link", "set", "to-" + host, "up")


@contextmanager
def network(*workers: str) -> Iterator[Network]:
    """A bridge on ``head``, to which each of `workers` has a cable.

    Raises:
        NotPermittedError: no root, no kernel support, or no iproute2.
    """
    prefix = f"dasnet-{os.getpid()}-"
    hosts = ["head", *workers]
    made = Network(prefix, {host: f"10.213.0.{number}" for number, host in enumerate(hosts, start=1)})
    with ExitStack() as undo:
        for host in hosts:
            _ip("netns", "add", prefix + host)
            undo.callback(_ip, "netns", "delete", prefix + host)
            _ip("-n", prefix + host, "link", "set", "lo", "up")
        head = prefix + "head"
        _ip("-n", head, "link", "add", "bridge", "type", "bridge")
        _ip("-n", head, "address", "add", f"{made.addresses['head']}/24", "dev", "bridge")
        _ip("-n", head, "link", "set", "bridge", "up")
        for host in workers:
            there = prefix + host
            _ip("link", "add", "to-" + host, "netns", head, "type", "veth", "peer", "name", "cable", "netns", there)
            _ip("-n", head, "link", "set", "to-" + host, "master", "bridge", "up")
            _ip("-n", there, "address", "add", f"{made.addresses[host]}/24", "dev", "cable")
            _ip("-n", there, "link", "set", "cable", "up")
        yield made


@contextmanager
def process(command: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process group that is ended with the context, however it goes."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DASK_CONFIG": str(ROOT / "deploy/dask"), **environment},
            start_new_session=True,
        )
    try:
        yield started
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(timeout=20)


def tls(certificates: Certificates, role: str) -> list[str]:
    """Options of ``dask scheduler`` and ``dask worker``."""
    return [
        *("--tls-ca-file", str(certificates.authority)),
        *("--tls-cert", str(certificates.certificate(role))),
        *("--tls-key", str(certificates.key(role))),
    ]


def wait_until(true: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience_s:.0f} s")
        time.sleep(0.1)


@dataclass(frozen=True)
class Cluster:
    """A scheduler on ``head`` and one worker on each other host."""

    network: Network
    folder: Path
    certificates: Certificates = field(init=False)

    def __post_init__(self) -> None:
        names = list(self.network.addresses.values())
        object.__setattr__(self, "certificates", make_certificates(self.folder / "certs", hosts=names))

    @property
    def address(self) -> str:
        return f"tls://{self.network.addresses['head']}:{_PORT}"

    @contextmanager
    def running(self) -> Iterator[None]:
        dask = (sys.executable, "-m", "dask")
        head, log = self.network.addresses["head"], self.folder / "scheduler.log"
        scheduler = ["scheduler", "--host", f"tls://{head}", "--port", _PORT, "--no-dashboard"]
        with ExitStack() as started:
            started.enter_context(
                process(self.network.on("head", *dask, *scheduler, *tls(self.certificates, "scheduler")), log)
            )
            for host in self.network.addresses:
                if host != "head":
                    options = ["worker", self.address, "--nthreads", 2, "--no-dashboard", "--name", host]
                    options += ["--local-directory", self.folder / host, "--death-timeout", 600]
                    # a worker that has lost its scheduler ends; Docker and Kubernetes start it again, as this does
                    again = ["bash", "-c", 'while :; do "$@"; sleep 1; done', "again"]
                    command = self.network.on(host, *again, *dask, *options, *tls(self.certificates, "worker"))
                    started.enter_context(process(command, self.folder / f"{host}.log", DASNET_BENCHMARK_HOST=host))
            yield

    def removed_after(self, began: float) -> float | None:
        """Seconds from `began` (``time.time()``) until the scheduler wrote that it lost a worker; None = never."""
        for line in (self.folder / "scheduler.log").read_text().splitlines():
            if "Remove addr" in line or "Remove worker" in line:
                stamp, _, thousandths = line.split(" distributed", 1)[0].partition(",")
                at = time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S")) + float(thousandths) / 1000
                if at >= began - 1:
                    return at - began
        return None


class Counted:
    """A predictor that leaves a file in `folder` for each block it begins."""

    def __init__(self, inner: Predictor, folder: Path, pause_s: float) -> None:
        self._inner, self._folder, self._pause_s = inner, folder, pause_s

    def predict(self, *arguments: Any, **options: Any) -> Any:
        (self._folder / f"{os.environ['DASNET_BENCHMARK_HOST']}-{uuid.uuid4()}").touch()
        time.sleep(self._pause_s)
        return self._inner.predict(*arguments, **options)

    def describe(self) -> Any:
        return self._inner.describe()


def make_counted(make: Callable[[], Predictor], folder: Path, pause_s: float) -> Counted:
    return Counted(make(), folder, pause_s)


@flow(name="host-cut", persist_result=False)
def detect_counted(request: DetectRequest, folder: Path, pause_s: float) -> None:
    """The main job, with its calls counted in `folder`."""
    run_detection(request, partial(make_counted, predictor_factory(resolve(request)), folder, pause_s))


@dataclass(frozen=True, kw_only=True)
class Detection:
    """How a run went: digest of its probability, blocks begun in all, and seconds of its stage infer."""

    sha256: str
    blocks: int
    begun: int
    seconds: float


def detection(
    cluster: Cluster,
    before: Path,
    after: Path,
    output: Path,
    *,
    block: int,
    pause_s: float,
    cut: Callable[[], None] | None = None,
    share: float = 0.25,
) -> Detection:
    """Run the job on ``head``; call `cut` when `share` of its blocks is done, or, with 0, before it starts."""
    calls = output.with_name(output.name + "-calls")
    calls.mkdir()
    ledger, log = output / "ledger" / "infer.jsonl", cluster.folder / f"{output.name}.log"
    if cut is not None and not share:
        cut()
    workers = 2 if share else 1
    options = ["--drive", cluster.address, cluster.certificates.directory, before, after, output, block, pause_s]
    options.append(workers)
    command = cluster.network.on("head", sys.executable, "-m", "benchmarks.host_cut", *options)
    with process(command, log) as driver:

        def done() -> int:
            assert driver.poll() is None, f"the run has ended: see {log}:\n{log.read_text()[-3000:]}"
            return ledger.read_bytes().count(b"\n") if ledger.exists() else 0

        if cut is not None and share:
            with rasterio.open(before) as picture:
                total = -(-picture.width // block) * -(-picture.height // block)
            wait_until(lambda: done() >= share * total, f"{share} of {total} blocks")
            cut()
        driver.wait(timeout=_PATIENCE_S + 600)
        assert driver.returncode == 0, f"see {log}:\n{log.read_text()[-3000:]}"
    return Detection(
        sha256=probability_sha256(output),
        blocks=ledger.read_bytes().count(b"\n"),
        begun=len(list(calls.iterdir())),
        seconds=(RunDirectory(output).describe() or {})["seconds"]["infer"],
    )


def drive(
    address: str, certificates: str, before: str, after: str, output: str, block: str, pause_s: str, workers: str
) -> None:
    """What runs on ``head``."""
    request = DetectRequest.model_validate(
        {
            "before": before,
            "after": after,
            "output": output,
            "block": int(block),
            "cluster": {"kind": address, "certificates": certificates, "workers": int(workers), "lanes": 1},
        }
    )
    detect_counted(request, Path(output + "-calls"), float(pause_s))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An undisturbed run, and one that lost a host."""

    undisturbed: Detection
    disturbed: Detection
    noticed_s: float | None

    @property
    def recomputed(self) -> int:
        return self.disturbed.begun - self.disturbed.blocks


def compare(before: Path, after: Path, folder: Path, *, block: int, pause_s: float) -> Comparison:
    """Both runs, one after the other, on two hosts.

    Raises:
        NotPermittedError: no namespaces here.
    """
    moments: list[float] = []
    with network("one", "two") as hosts:
        cluster = Cluster(hosts, folder)

        def cut() -> None:
            hosts.cut("two")
            moments.append(time.time())

        with cluster.running():
            run = partial(detection, cluster, before, after, block=block, pause_s=pause_s)
            undisturbed = run(folder / "undisturbed")
            disturbed = run(folder / "disturbed", cut=cut)
            noticed = cluster.removed_after(moments[0])
    return Comparison(undisturbed=undisturbed, disturbed=disturbed, noticed_s=noticed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1536)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds added to each block, as a heavier network")
    parser.add_argument("--drive", nargs=8, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(*options.drive)
        return
    folder = Path(tempfile.mkdtemp())
    try:
        before, after = scene(folder, height=options.side, width=options.side)
        found = compare(before, after, folder, block=options.block, pause_s=options.pause)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert found.disturbed.sha256 == found.undisturbed.sha256
    print(
        f"host cut: one of two hosts lost after a quarter of {found.disturbed.blocks} blocks: {found.recomputed} "
        f"blocks computed again; noticed after {found.noticed_s or 0:.0f} s; infer {found.disturbed.seconds:.0f} s "
        f"instead of {found.undisturbed.seconds:.0f} s, that is "
        f"{found.disturbed.seconds - found.undisturbed.seconds:.0f} s lost, on one host instead of two for three "
        f"quarters of the blocks; the same SHA-256; {machine()}",
        flush=True,
    )


if __name__ == "__main__":
    main()

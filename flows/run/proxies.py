"""A proxy in the environment is for other hosts: what this machine says to itself goes past it."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_OWN = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_EXCEPTIONS = ("no_proxy", "NO_PROXY")


def pass_by_proxies(environment: MutableMapping[str, str] = os.environ) -> None:
    """Except loopback from the proxies that an environment names, for this process and for those that it starts.

    An address of a user's that a proxy must reach stays with it; without a proxy nothing changes.
    """
    if not any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES):
        return
    named = [host for name in _EXCEPTIONS for host in environment.get(name, "").split(",") if host.strip()]
    hosts = list(dict.fromkeys([*(host.strip() for host in named), *_OWN]))
    for name in _EXCEPTIONS:
        environment[name] = "*" if "*" in hosts else ",".join(hosts)

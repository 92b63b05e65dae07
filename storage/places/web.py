"""Files on web servers: addresses that are quoted once, and what a server says of a file, with an end to waiting."""

from __future__ import annotations

import hashlib
import http.client
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit, urlunsplit

from storage.errors import InputError

FIRST_CONTACT_S = 20.0
"""Seconds in all that a server has to answer before a run begins, when an error is more likely a wrong address."""

_AT_ONCE_S = 10.0
"""Seconds for a connection, and for the next bytes of an answer."""

_BUSY = (429, 500, 502, 503, 504)
_NO_HEAD = (400, 403, 405, 501)
"""Answers of servers that know no HEAD, and of addresses that are signed for GET alone."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WebFacts:
    """What a server says of a file without sending it; None where it does not say.

    Attributes:
        size: bytes.
        modified: ``Last-Modified``, as it stands there.
        tag: entity tag, with its quotes.
    """

    size: int | None
    modified: str | None
    tag: str | None


def is_web(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def quoted_once(address: str) -> str:
    """An address as a request has it: blanks and what is not ASCII as ``%XX``; what is quoted already stays so."""
    if not is_web(address):
        return address
    parts = urlsplit(address)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    path, query = (re.sub("%(?![0-9A-Fa-f]{2})", "%25", text) for text in (parts.path, parts.query))
    return urlunsplit(
        (
            parts.scheme,
            host,
            quote(path, safe="%/:=&~+!$,;'@()*"),
            quote(query, safe="%/:=&~+!$,;'@()*?"),
            parts.fragment,
        )
    )


def open_address(
    address: str, *, patience_s: float = FIRST_CONTACT_S, method: str = "GET", **headers: str
) -> http.client.HTTPResponse:
    """The answer to a request, to be read and closed; a server that is busy is asked again while there is time.

    Raises:
        HTTPError: the server refuses.
        OSError: it does not answer, or not within `patience_s` seconds.
    """
    request = urllib.request.Request(quoted_once(address), method=method, headers={"User-Agent": "dasnet", **headers})
    deadline, pause = time.monotonic() + patience_s, 0.5
    while True:
        try:
            # a server may answer a byte every few seconds, and a name may not be found for minutes
            return within(deadline - time.monotonic(), partial(urllib.request.urlopen, request, timeout=_AT_ONCE_S))
        except HTTPError as error:
            if error.code not in _BUSY or time.monotonic() + pause > deadline:
                raise
        except http.client.HTTPException as error:
            raise OSError(f"no answer of a web server: {error!r}") from error
        time.sleep(pause)
        pause *= 2


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` gives; raises TimeoutError where it takes longer, and leaves it behind."""
    results: list[T] = []
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=attempt, name="first contact", daemon=True)
    thread.start()
    thread.join(max(seconds, 0.1))
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError("no answer in time")
    return results[0]


def web_facts(address: str, *, patience_s: float = FIRST_CONTACT_S) -> WebFacts:
    """What a server says of a file; where it takes no HEAD, of its first byte.

    Raises:
        InputError: it refuses, or does not answer within `patience_s` seconds.
    """
    try:
        try:
            with open_address(address, patience_s=patience_s, method="HEAD") as answer:
                size = answer.headers.get("Content-Length")
        except HTTPError as error:
            if error.code not in _NO_HEAD:
                raise
            with open_address(address, patience_s=patience_s, Range="bytes=0-0") as answer:
                size = answer.headers.get("Content-Length")
                if answer.status == 206:
                    size = str(answer.headers.get("Content-Range", "")).rpartition("/")[2]
    except (OSError, ValueError) as error:
        raise InputError(f"{address}: its server does not tell its version: {reason(error)}") from error
    return WebFacts(
        size=int(size) if size and size.isdigit() else None,
        modified=answer.headers.get("Last-Modified"),
        tag=answer.headers.get("ETag"),
    )


def web_sha256(address: str) -> str:
    """SHA-256 of what a server sends, as hex; raises InputError as :func:`web_facts`, and where it sends too little."""
    total, count = hashlib.sha256(), 0
    try:
        with open_address(address) as answer:
            promised = answer.headers.get("Content-Length")
            while part := answer.read(1 << 20):
                total.update(part)
                count += len(part)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(f"{address} cannot be read for its digest: {reason(error)}") from error
    if promised is not None and int(promised) != count:
        raise InputError(f"{address} cannot be read for its digest: {count} of {promised} bytes came")
    return total.hexdigest()


def reason(error: Exception) -> str:
    """Why a server could not be asked, in a few words."""
    if isinstance(error, HTTPError):
        return f"it answers {error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return "it does not answer"
    return str(cause)

"""The client that talks to S3-compatible stores: what the environment says of them, patience, and errors in a line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any

from obstore.store import S3Store

PATIENCE = timedelta(minutes=3)
"""For a store that does not answer or answers 5xx: requests are repeated, ever more slowly, so long."""

FIRST_CONTACT = timedelta(seconds=10)
"""The same before a run begins, when an error is more likely to be a wrong address."""

_REQUEST = timedelta(minutes=2)
_CODE = re.compile(r"<Code>(?P<code>[^<]*)</Code>(?:.*?<Message>(?P<message>[^<]*)</Message>)?", re.DOTALL)
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]+)")


def client(bucket: str, *, prefix: str = "", patience: timedelta = PATIENCE) -> S3Store:
    """A client of a bucket, or of what lies below a prefix of it; another one when the environment changes."""
    return _client(bucket, prefix, patience, settings())


def settings() -> tuple[tuple[str, str], ...]:
    """What the environment says of the store now, and its ``endpoint`` where one is named."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next((variables[name] for name in names if variables.get(name)), None)
    return (*sorted(variables.items()), *((("endpoint", endpoint),) if endpoint else ()))


@lru_cache(maxsize=32)
def _client(bucket: str, prefix: str, patience: timedelta, settings: tuple[tuple[str, str], ...]) -> S3Store:
    endpoint = dict(settings).get("endpoint")
    config: Mapping[str, Any] = {} if endpoint is None else {"endpoint": endpoint}
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "timeout": min(_REQUEST, patience),
        },
        retry_config={"max_retries": 1000, "retry_timeout": patience, "backoff": {"max_backoff": timedelta(seconds=5)}},
        **config,
    )


def explain(error: Exception, *, bucket: str) -> str:
    """What a store answered, in a line, without what the request looked like."""
    text = str(error)
    answered, status = _CODE.search(text), _STATUS.search(text)
    if answered and answered["code"] == "NoSuchBucket":
        return f"there is no bucket {bucket}"
    if answered or status:
        code = ": ".join(part for part in (answered["code"], answered["message"]) if part) if answered else ""
        number = status[1].strip() if status else ""
        words = f"{number} ({code})" if number and code else number or code
        denied = "access denied, " if number.startswith(("401", "403")) else ""
        return f"{denied}the store answered {words}"
    cause = text.partition("\n\nDebug source")[0].replace("\n", " ")
    return f"the store does not answer: {cause[:400]}"

"""Names and settings by which GDAL reads an object of a bucket."""

from __future__ import annotations

import os
import re
from typing import Any

from storage.places.bucket import SCHEME
from storage.places.client import settings
from storage.places.web import is_web, quoted_once

_CURL = "/vsicurl/"

_INSIDE = re.compile(r"/vsi(?:zip|tar)/\{(?P<file>[^{}]+)\}/")
"""A raster inside a file, as ``storage/imagery/names/packed.py`` names it."""


def gdal_name(path: str) -> str:
    """How GDAL opens a path."""
    if path.startswith(SCHEME):
        return f"/vsis3/{path.removeprefix(SCHEME)}"
    address = path.removeprefix(_CURL)
    if is_web(address):
        return f"{_CURL}{quoted_once(address)}"
    is_local_with_colon = ":" in path.partition("/")[0] and "://" not in path  # GDAL takes HTTP:x.tif for an address
    return f"./{path}" if is_local_with_colon else path


def plain_name(path: str) -> str:
    """The opposite of :func:`gdal_name`; of a raster inside a zip or tar file that file, which holds its bytes."""
    if inside := _INSIDE.match(path):
        return inside["file"]
    if path.startswith("/vsis3/"):
        return f"{SCHEME}{path.removeprefix('/vsis3/')}"
    address = path.removeprefix(_CURL)
    return address if is_web(address) else path


def gdal_settings(*, is_planning: bool = False) -> dict[str, Any]:
    """Options under which GDAL reads what we describe, finds the same store as we do, and is as patient.

    Keys it takes from the environment.

    Args:
        is_planning: give up after seconds where a server is silent, as its address is more likely to be wrong.
    """
    environment = dict(settings())
    options: dict[str, Any] = {
        "GDAL_HTTP_MAX_RETRY": 2 if is_planning else 8,
        "GDAL_HTTP_RETRY_DELAY": 0.5,
        "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
        "GDAL_HTTP_CONNECTTIMEOUT": 5 if is_planning else 30,
        # a server that sends less than a byte a second is taken for silent
        "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
        "GDAL_HTTP_LOW_SPEED_TIME": 8 if is_planning else 60,
        # what a file beside a raster says of it counts, whatever the user's shell has set
        "GDAL_PAM_ENABLED": "YES",
        # a file that was replaced, or that a failing server seemed not to have, is looked at again
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/:/vsicurl/",
    }
    endpoint = environment.get("endpoint")
    if endpoint:
        options["AWS_S3_ENDPOINT"] = re.sub(r"^https?://", "", endpoint).rstrip("/")
        options["AWS_HTTPS"] = "NO" if endpoint.startswith("http://") else "YES"
        virtual = os.environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() in ("1", "true")
        options["AWS_VIRTUAL_HOSTING"] = virtual
    if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        options["AWS_NO_SIGN_REQUEST"] = True
    return options

"""Addresses without passwords and signatures."""

from __future__ import annotations

import re

from storage.errors import InputError

_OF_CREDENTIALS = re.compile(
    r"//[^/?#@\s]*:[^/?#@\s]*@|//[^/?#@\s]+@"
    r"|[?&;](x-amz-[a-z-]+|awsaccesskeyid|signature|sig|se|sp|sv|token|[a-z_-]*(?:access|api|secret|auth|subscription)"
    r"[a-z_-]*(?:key|token)|key|password|passwd|pwd|secret|x-goog-[a-z-]+|googleaccessid|policy|key-pair-id)=[^&#\s]*",
    re.IGNORECASE,
)


def refuse_credentials(text: str) -> str:
    """Give an address back, unless it carries a password or a signature: they would end in run.json, logs and products.

    Raises:
        InputError: without what it found.
    """
    if ("://" in text or text.startswith("/vsi")) and _OF_CREDENTIALS.search(text):
        bare = re.sub(r"//[^/?#@\s]*@", "//…@", text.partition("?")[0])
        raise InputError(
            f"{bare} was given with a password, a token or a signature in it, which would be kept with the run: give "
            "the bare address, and credentials by the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, …)"
        )
    return text

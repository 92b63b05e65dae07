"""A web server of files as a process of its own: GDAL holds the interpreter while it waits for an answer.

The first part of a path says how the server behaves:

``etag``     entity tags of the content, and If-Match as it is meant
``dated``    Last-Modified alone, without conditions
``bare``     neither
``nohead``   405 for HEAD, entity tags
``lagging``  a HEAD answers with the first entity tag that it had, as a cache in front would; GET is as ``etag``
``silent``   takes the connection and never answers
``busy``     503 for the first two requests
"""

from __future__ import annotations

import hashlib
import http.server
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with files below :attr:`root`."""

    protocol_version = "HTTP/1.1"
    root: Path
    first_tags: dict[str, str] = {}  # noqa: RUF012
    asked: Counter[str] = Counter()  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        """The headers alone."""
        self._answer(with_body=False)

    def do_GET(self) -> None:
        """A file or a part of it."""
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        kind, _, name = unquote(self.path).strip("/").partition("/")
        file = self.root / name
        self.asked[self.path] += 1
        if kind == "silent":
            time.sleep(3600)
        if kind == "busy" and file.is_file() and self.asked[self.path] <= 2:
            return self._empty(503)
        if kind == "nohead" and not with_body:
            return self._empty(405)
        if " " in self.path or not self.path.isascii() or not file.is_file():
            return self._empty(404)
        content = file.read_bytes()
        tag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        condition = self.headers.get("If-Match")
        if kind not in ("dated", "bare") and condition not in (None, tag) and with_body:
            return self._empty(412)
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        part = content
        if wanted:
            stop = min(int(wanted[2] or len(content)), len(content) - 1) + 1
            part = content[int(wanted[1]) : stop]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {wanted[1]}-{stop - 1}/{len(content)}")
        else:
            self.send_response(200)
        if kind not in ("dated", "bare"):
            known = self.first_tags.setdefault(self.path, tag)
            self.send_header("ETag", known if kind == "lagging" and not with_body else tag)
        if kind == "dated":
            self.send_header("Last-Modified", self.date_time_string(int(file.stat().st_mtime)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if with_body:
            self.wfile.write(part)
        return None

    def _empty(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def web_server(root: Path) -> Iterator[str]:
    """A running server of the files below a folder; yields its address."""
    with subprocess.Popen(
        [sys.executable, __file__, str(root)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def main() -> None:
    """Serve until killed; print the port."""
    Handler.root = Path(sys.argv[1])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()

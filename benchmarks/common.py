"""What the benchmarks share: a scene to work on, a run under the embedded Prefect server, memory by the second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from flows.run import machine as here


def machine() -> str:
    """Cores, processor and date, as every result line ends."""
    return f"{here.machine()}, {date.today():%Y-%m-%d}"


def scene(folder: Path, *, height: int, width: int, seed: int = 11) -> tuple[Path, Path]:
    """A synthetic pair, made once in `folder`."""
    from storage.synthetic.pair import synthesize

    place = folder / f"scene-{height}x{width}-{seed}"
    if not (place / "change.tif").exists():
        synthesize(place, height=height, width=width, seed=seed)
    return place / "before.tif", place / "after.tif"


def dated_copies(folder: Path, *, count: int, side: int) -> list[Path]:
    """Dates of one synthetic scene, a year apart, by turns its earlier and its later state; no two the same bytes."""
    import shutil

    import rasterio

    states = scene(folder, height=side, width=side)
    paths = []
    for number in range(count):
        path = Path(shutil.copy(states[number % 2], folder / f"{2010 + number}0615.tif"))
        with rasterio.open(path, "r+") as file:
            file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=f"{2010 + number}-06-15T10:30:00")
        paths.append(path)
    return paths


@contextmanager
def prefect() -> Iterator[None]:
    """Prefect's API for flows called inside."""
    from flows.service.embedded import embedded_server, flush_logs
    from flows.service.processes import server_log

    with embedded_server(server_log()):
        try:
            yield
        finally:
            flush_logs()


@dataclass
class MemoryPeak:
    """Peak resident memory, in bytes, of this process and of its largest worker while the context is open."""

    driver: int = 0
    worker: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> MemoryPeak:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.2):
            self.driver = max(self.driver, me.memory_info().rss)
            for child in me.children(recursive=True):
                try:
                    command = " ".join(child.cmdline())
                    if "multiprocessing" in command and "resource_tracker" not in command:
                        self.worker = max(self.worker, child.memory_info().rss)
                except psutil.Error:
                    continue


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Result of `function` and its seconds."""
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def probability_sha256(run: Path) -> str:
    """SHA-256 over the whole probability array of a run, row by row."""
    import hashlib

    import zarr

    array = zarr.open_group(run / "run.zarr", mode="r")["change_probability"]
    digest = hashlib.sha256()
    for y in range(0, array.shape[1], 2048):
        digest.update(array[0, y : y + 2048].tobytes())
    return digest.hexdigest()

"""Threads of a CPU that compute parts of one block at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


class Lanes:
    """So many threads, each with one thread of torch; with one lane, whoever calls computes."""

    def __init__(self, count: int = 1) -> None:
        self._threads: ThreadPoolExecutor | None = None
        if count > 1:
            self._threads = ThreadPoolExecutor(count, thread_name_prefix="lane", initializer=torch.get_num_threads)
        self._ahead = 2 * count

    def each(self, compute: Callable[[T], object], items: Iterable[T]) -> None:
        """Call `compute` with each item, a few ahead of those that are done; returns when all are."""
        torch.get_num_threads()  # with which a thread learns of torch.set_num_threads; convolutions do not ask
        if self._threads is None:
            for item in items:
                compute(item)
            return

        def in_lane(item: T) -> None:
            with torch.inference_mode():  # of this thread
                compute(item)

        ahead: deque[Future[None]] = deque()
        try:
            for item in items:
                ahead.append(self._threads.submit(in_lane, item))
                if len(ahead) > self._ahead:
                    ahead.popleft().result()
            while ahead:
                ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

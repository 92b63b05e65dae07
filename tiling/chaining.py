"""Items that follow each other on one worker, and how such chains are cut where a worker would else be idle."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

_LONG = 4
"""Items that wait in a chain that is cut in two so that a worker has one item to read while it computes another."""


@dataclass(frozen=True, kw_only=True)
class Chaining:
    """Items that lie together go to one worker, one after another.

    Attributes:
        group: what says which items do; those of one group follow each other.
        link: makes the item that a worker is given, of an item, the name of its chain and the items that come after it
            there. An item that is tried again is given as it is.
        busy: items that are computed at a time on each worker. Where there are fewer, and no other, a chain is cut in
            two; and a long one already where there is one more.
    """

    group: Callable[[Any], Hashable]
    link: Callable[[Any, str, Sequence[Any]], Any]
    busy: int


@dataclass(eq=False)
class Chain:
    """What is still to come of a chain, and the address of the worker that had its last item; None = not known."""

    name: str
    waiting: deque[tuple[str, Any]]
    worker: str | None = None


class Chains:
    """Items in chains, each of one item where there is no `chaining`; consumed lazily, a chain at a time."""

    def __init__(self, items: Iterable[tuple[str, Any]], chaining: Chaining | None) -> None:
        self.chaining = chaining
        run = uuid4().hex  # a tool may outlive a runner, and what it carries is not for the next one
        self._names = (f"{run}-{number}" for number in itertools.count())
        self._fresh = self._grouped(items)
        self._open: list[Chain] = []
        self._free: deque[Chain] = deque()

    def _grouped(self, items: Iterable[tuple[str, Any]]) -> Iterator[Chain]:
        if self.chaining is None:
            return (Chain(name="", waiting=deque([item])) for item in items)
        group = self.chaining.group
        groups = itertools.groupby(items, key=lambda named: group(named[1]))
        return (Chain(name=next(self._names), waiting=deque(together)) for _, together in groups)

    def next(self) -> Chain | None:
        """A chain whose next item may be computed: one that was begun, or a new one; None = there is none now."""
        if self._free:
            return self._free.popleft()
        fresh = next(self._fresh, None)
        return None if fresh is None else self._begun(fresh)

    def half(self, *, running: int, workers: int) -> Chain | None:
        """The second half of the chain of which most waits, where so few items are running that lanes are idle."""
        longest = max(self._open, key=lambda chain: len(chain.waiting), default=None)
        if self.chaining is None or longest is None or not longest.waiting:
            return None
        idle = running < self.chaining.busy * workers
        if not idle and (running >= (self.chaining.busy + 1) * workers or len(longest.waiting) < _LONG):
            return None
        rest = deque(longest.waiting.pop() for _ in range(-(-len(longest.waiting) // 2)))
        rest.reverse()
        return self._begun(Chain(name=next(self._names), waiting=rest))

    def go_on(self, chain: Chain, worker: str | None) -> None:
        """Let the next item of a chain follow one that ended on a worker; None = it is not known on which."""
        chain.worker = worker or chain.worker
        if chain.waiting:
            self._free.append(chain)
        elif chain in self._open:
            self._open.remove(chain)

    def _begun(self, chain: Chain) -> Chain:
        if len(chain.waiting) > 1:
            self._open.append(chain)
        return chain

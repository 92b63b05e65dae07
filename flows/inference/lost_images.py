"""Imagery that a store lost, or whose bytes changed at rest: it is set back, so that the next ingest reads it anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from storage.errors import IntegrityError
from storage.places.bucket import Location
from storage.stores.run_store import RunStore
from tiling.grid import Block, Box
from tiling.ledger import Ledger

_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One block of one date: its name in the ledger of ingest, and where it lies."""

    name: str
    store: RunStore[Any]
    time: int
    box: Box

    def is_whole(self) -> bool:
        """Whether it can be read, decoded and checked against its checksums."""
        try:
            self.store.read_images(self.time, rows=self.box.rows, cols=self.box.cols)
        except IntegrityError:
            return False
        return True


def stored_images(store: RunStore[Location], blocks: Iterable[Block]) -> Iterator[StoredImage]:
    """Every date of some blocks of a run."""
    return (
        StoredImage(name=f"t{time}/{block.name}", store=store, time=time, box=block.box)
        for block in blocks
        for time in range(store.dates)
    )


def set_back_lost(ingested: Ledger, images: Iterable[StoredImage]) -> list[str]:
    """Look at blocks that the ledger of ingest calls done; set back those that are not; returns their names."""
    wanted = {image.name: image for image in images if ingested.state(image.name) == "done"}
    lost = [name for name, image in wanted.items() if not image.is_whole()]
    if lost:
        ingested.forget(lost, reason="the stored imagery was lost or its bytes changed")
    return lost


@contextmanager
def looking_at(images: Iterable[StoredImage], *, ingested: Callable[[], Ledger]) -> Iterator[None]:
    """Read the imagery for a product; where that fails, find out which blocks are to blame and set them back.

    Args:
        ingested: opens the ledger of ingest.

    Raises:
        IntegrityError: naming them.
    """
    try:
        yield
    except IntegrityError as error:
        lost = set_back_lost(ingested(), images)
        if not lost:
            raise
        raise IntegrityError(
            f"{error}\n{len(lost)} blocks of imagery are set back ({', '.join(lost[:_NAMED])}"
            f"{', …' if len(lost) > _NAMED else ''}); run the same command again to read them anew"
        ) from error

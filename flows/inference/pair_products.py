"""Products that any pair of dates has: COG, polygons, quicklook and STAC item, of a whole run or of a cell.

The libraries that write them are imported when one is to be made: a run that is finished makes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from flows.inference.lost_images import StoredImage, looking_at
from flows.inference.plate_stage import PairPlates, PlateStage
from flows.inference.product_ledger import ProductLedger
from flows.run.versions import versions
from storage.errors import IntegrityError
from storage.places.bucket import Location
from tiling.ledger import Ledger

if TYPE_CHECKING:
    from storage.pages.quicklook import Quicklooks

T = TypeVar("T")

QUICKLOOK = "Before, after and change probability"

_KINDS = {
    "probability": ("image/tiff; application=geotiff; profile=cloud-optimized", "Change probability", "data"),
    "changes": ("application/vnd.apache.parquet", "Changed areas", "data"),
    "quicklook": ("image/png", QUICKLOOK, "thumbnail"),
    "report": ("text/html", "Report", "overview"),
}
"""Media type, title and STAC role of each product."""


def import_makers() -> None:
    """Import what makes the products, while workers start and compute: it takes a second or two."""
    import storage.pages.quicklook
    import storage.pages.run_report
    import storage.products.geotiff.join
    import storage.products.polygons
    import storage.products.stac  # noqa: F401


def make_parts(pairs: Sequence[PairProducts]) -> None:
    """Let workers make what the products of pairs are joined from, in one stage.

    Raises:
        IntegrityError: storage has lost or changed blocks, or imagery; both are set back, and the message names them.
    """
    pairs = [pair for pair in pairs if not pair.has_parts]
    if not pairs:
        return
    with ExitStack() as stack:
        for pair in pairs:
            stack.enter_context(looking_at(pair.stored(), ingested=pair.ingested))
        pairs[0].stage.make([pair.plates for pair in pairs])
    for pair in pairs:
        pair.has_parts = True


class PairProducts:
    """Makes the products of one pair unless they stand already, of what workers have made of its plates."""

    def __init__(
        self,
        products: ProductLedger[Any],
        plates: PairPlates,
        stage: PlateStage,
        *,
        stored: Callable[[], Iterable[StoredImage]],
        ingested: Callable[[], Ledger],
    ) -> None:
        """`stored`: the imagery that a picture is made of; `ingested`: its ledger."""
        self.products, self.plates, self.stage = products, plates, stage
        self.stored, self.ingested = stored, ingested
        self.has_parts = False

    def stand(self) -> bool:
        """Whether all products are there; whether they are what they were is seen when each is asked for."""
        return all(self.products.has(name) and self.products.path(name).exists() for name in self.products.names)

    def make_parts(self) -> None:
        """Let workers make what the products are joined from; raises as :func:`make_parts`."""
        make_parts([self])

    def remove_parts(self) -> None:
        """Delete them: the products stand."""
        self.plates.remove_parts()

    def make_probability(self, parameters: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The COG; returns its facts, with a ``histogram`` of the 256 stored values; `tags`: what the file says."""

        def make(path: Location) -> dict[str, Any]:
            from storage.products.cog import probability_layer
            from storage.products.geotiff.join import join_cog

            grid = self.plates.reader.grid
            self._joined(
                lambda: join_cog(
                    path, probability_layer(tags), grid=grid, parts=self.plates.tiles, plate=self.plates.size
                )
            )
            sums = self.stage.sums(self.plates)
            return {**asdict(sums), "valid_pixels": sums.valid_pixels}

        return self.products.make("probability", make, parameters=dict(parameters))

    def make_changes(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The polygons; returns ``count`` and ``area_m2``."""

        def make(path: Location) -> dict[str, Any]:
            from storage.products.polygons import join_changes

            grid, min_area_m2 = self.plates.reader.grid, self.stage.makers.min_area_m2
            joined = self._joined(
                lambda: join_changes(self.plates.outlines(), path, grid=grid, min_area_m2=min_area_m2)
            )
            return asdict(joined)

        return self.products.make("changes", make, parameters=dict(parameters))

    def make_quicklook(self, parameters: Mapping[str, Any], *, captions: tuple[str, str, str]) -> None:
        """Both dates and the probability in one picture."""

        def make(path: Location) -> None:
            from storage.pages.quicklook import write_quicklook

            write_quicklook(path, self.looks, captions=captions)

        self.products.make("quicklook", make, parameters=dict(parameters))

    @cached_property
    def looks(self) -> Quicklooks:
        """Both dates and the probability, small."""
        from storage.pages.quicklook import join_looks

        reader = self.plates.reader
        return self._joined(
            lambda: join_looks(
                self.plates.looks(), height=reader.height, width=reader.width, threshold=self.stage.makers.threshold
            )
        )

    def _joined(self, join: Callable[[], T]) -> T:
        """Join parts, which are made first if they are not there; where one turns out damaged, all are set back."""
        self.make_parts()
        try:
            return join()
        except IntegrityError:
            self.stage.set_back(self.plates)
            raise

    def make_item(self, parameters: Mapping[str, Any], **facts: Any) -> None:
        """The STAC item; `facts` as in :func:`storage.products.stac.write_item`."""
        digests = {name: self.products.digest(name) for name in _KINDS if self.products.has(name)}

        def make(path: Location) -> None:
            from storage.products.stac import ItemAsset, write_item

            assets = [
                ItemAsset(
                    key=name,
                    path=self.products.path(name),
                    sha256=digests[name],
                    media_type=media_type,
                    title=title,
                    roles=[role],
                )
                for name, (media_type, title, role) in _KINDS.items()
                if name in digests
            ]
            write_item(path, assets=assets, software=versions(), **facts)

        self.products.make("item", make, parameters={**parameters, "assets": digests})

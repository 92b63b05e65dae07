"""Static STAC: what a catalogue, a collection, an item collection or an item names, wherever it lies.

Files are read from disks, over HTTP with an end to waiting, and from buckets. Whatever is wrong with an item is said
with the item's name and the file that it stands in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pystac
from odc.geo.geom import Geometry
from pystac.utils import make_absolute_href

from storage.archives.geoparquet import items_of_parquet
from storage.errors import InputError
from storage.imagery.dates.acquisition import is_future, naive_utc
from storage.imagery.names.indexes import PARQUET_SUFFIXES, is_raster_asset
from storage.imagery.names.local import is_there, unquoted_name
from storage.imagery.sources import is_remote, is_zarr
from storage.longitudes import footprint_touches
from storage.places.bucket import SCHEME, ObjectPath
from storage.places.credentials import refuse_credentials
from storage.places.web import open_address, reason
from storage.text import decoded


class MissingFileError(InputError):
    """An item names a file that is not there."""


Stack = tuple[tuple[str, str], ...]
"""(name, path) of the rasters of one place."""


@dataclass(frozen=True, kw_only=True)
class SourceItem:
    """A STAC item that imagery came from: its id, and where it stands (None for an item that has no address)."""

    id: str
    href: str | None


@dataclass(frozen=True, kw_only=True)
class StacImage:
    """One item of a catalogue.

    Attributes:
        content: the item as pystac reads it.
        time: naive UTC; the beginning of a span.
        words: how messages name the item; `base`: what its relative addresses are relative to.
    """

    content: pystac.Item
    time: datetime
    words: str
    base: str

    @property
    def item(self) -> SourceItem:
        return SourceItem(id=self.content.id, href=self.content.get_self_href())

    def stack(self, asset: str | None) -> Stack:
        """Its imagery; `asset` as of :func:`storage.archives.listing.read_archive`.

        Raises:
            InputError: no such asset, or several where one is wanted.
            MissingFileError: its file does not exist.
        """
        return tuple((key, _path(self, key)) for key in _keys(self, asset))


def read_images(href: str, *, outline: Geometry | None) -> Iterator[StacImage]:
    """All items at and below a STAC file.

    Args:
        href: a path, a URL, or ``s3://…``.
        outline: as of :func:`storage.archives.listing.read_archive`.

    Raises:
        InputError: it or something below it cannot be read, is not STAC, or lacks a date.
    """
    for image in _items(href, hrefs={href}):
        if outline is None or _touches(image, outline):
            yield image


def _items(href: str, *, hrefs: set[str]) -> Iterator[StacImage]:
    if href.lower().endswith(PARQUET_SUFFIXES) and not is_remote(href):
        for number, item in enumerate(items_of_parquet(href), start=1):
            yield _parsed(item, href, number=number)
        return
    content = _read(href)
    kind = content.get("type")
    if kind == "FeatureCollection":
        features = content.get("features")
        for number, feature in enumerate(features if isinstance(features, list) else [features], start=1):
            yield _parsed(feature, href, number=number)
        yield from _following_page(content, href, hrefs)
    elif kind == "Feature":
        yield _parsed(content, href)
    elif kind in ("Catalog", "Collection"):
        links = content.get("links")
        if not isinstance(links, list):
            raise InputError(f"{href} cannot be read as STAC: a {kind} has a list of links")
        for link in links:
            if not isinstance(link, Mapping) or link.get("rel") not in ("item", "child"):
                continue
            if not isinstance(link.get("href"), str):
                raise InputError(f"{href} cannot be read as STAC: a link of it has no href: {json.dumps(link)}")
            below = make_absolute_href(link["href"], href)
            if below not in hrefs:  # a link upwards would lead round and round
                hrefs.add(below)
                yield from _items(below, hrefs=hrefs)
    else:
        raise InputError(
            f"{href} cannot be read as STAC: its type is {kind!r}, not that of an item, an item collection, a "
            "collection or a catalogue"
        )


def _following_page(content: Mapping[str, Any], href: str, hrefs: set[str]) -> Iterator[StacImage]:
    """The items of the pages after one of a longer list.

    Raises:
        InputError: the list says that there are more, and not where; or where cannot be asked for by its address.
    """
    links = content.get("links")
    following = [
        link
        for link in (links if isinstance(links, list) else ())
        if isinstance(link, Mapping) and link.get("rel") == "next"
    ]
    if following:
        link = following[0]
        if not isinstance(link.get("href"), str) or str(link.get("method", "GET")).upper() != "GET":
            raise InputError(
                f"{href} is a page of a longer list, whose next page has no address of its own: fetch all pages into "
                "one file (pystac-client: search.item_collection().save_object(…))"
            )
        below = make_absolute_href(link["href"], href)
        if below in hrefs:
            raise InputError(f"{href} names itself or an earlier page as its next page, {below}")
        hrefs.add(below)
        yield from _items(below, hrefs=hrefs)
        return
    context = content.get("context")
    matched = content.get("numberMatched", context.get("matched") if isinstance(context, Mapping) else None)
    features = content.get("features")
    held = len(features) if isinstance(features, list) else 0
    if isinstance(matched, int) and matched > held and len(hrefs) == 1:
        raise InputError(
            f"{href} is a part of a longer list: {matched} items match, it holds {held} and names no next page"
        )


def _read(href: str) -> Mapping[str, Any]:
    refuse_credentials(href)
    try:
        if href.startswith(SCHEME):
            data = ObjectPath.parse(href).read_bytes()
        elif href.startswith(("http://", "https://")):
            with open_address(href) as answer:
                data = answer.read()
        else:
            data = Path(href).read_bytes()
        content = json.loads(decoded(data, path=href))
    except OSError as error:
        raise InputError(f"{href} cannot be read as STAC: {reason(error)}") from error
    except RecursionError as error:
        raise InputError(f"{href} cannot be read as STAC: it is nested too deeply") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{href} cannot be read as STAC: it is no JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{href} cannot be read as STAC: it holds no JSON object")
    return content


def _parsed(feature: Any, href: str, *, number: int | None = None) -> StacImage:
    """An item, from what a file has of it; `number`: of the item in a collection of them."""
    name = feature.get("id") if isinstance(feature, Mapping) else None
    if not isinstance(name, str) or not name:
        raise InputError(f"{href} cannot be read as STAC: item {number or ''} in it has no id".replace("  ", " "))
    words = f"STAC item {name} in {href}"
    time = _time(feature.get("properties"), words)
    for key, described in _mapping(feature.get("assets"), words, "assets").items():
        address = _mapping(described, words, f"asset {key!r}").get("href")
        if not isinstance(address, str) or not address.strip():
            raise InputError(f"{words}: its asset {key!r} has no href")
    try:
        item = pystac.Item.from_dict(dict(feature), href=None if number else href)
    except Exception as error:  # pystac's come in many types
        raise InputError(f"{words} is no item: {type(error).__name__}: {error}") from error
    return StacImage(content=item, time=time, words=words, base=item.get_self_href() or href)


def _mapping(value: object, words: str, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{words}: its {what} must be a JSON object, not {json.dumps(value)}")
    return value


def _time(properties: object, words: str) -> datetime:
    fields = _mapping(properties, words, "properties")
    time = fields.get("datetime") or fields.get("start_datetime")
    if time is None:
        raise InputError(f"{words} has no date: neither datetime nor start_datetime")
    try:
        begin = naive_utc(datetime.fromisoformat(time))
    except (ValueError, TypeError) as error:
        raise InputError(f"{words}: its date {time!r} is none (ISO 8601)") from error
    if is_future(begin):
        raise InputError(f"{words}: its date {time} lies in the future")
    return begin


def _touches(image: StacImage, outline: Geometry) -> bool:
    try:
        return footprint_touches(image.content.geometry, image.content.bbox, outline.geom)
    except Exception as error:  # odc-geo's and shapely's come in many types, a RecursionError among them
        raise InputError(f"{image.words} has a geometry that is none: {type(error).__name__}") from error


def _keys(image: StacImage, keys: str | None) -> list[str]:
    """Names of the assets that hold the imagery."""
    assets = image.content.assets
    if keys is None:
        rasters = {name: asset for name, asset in assets.items() if is_raster_asset(asset.to_dict())}
        data = {name: asset for name, asset in rasters.items() if "data" in (asset.roles or ())} or rasters
        if len(data) != 1:
            raise InputError(
                f"{image.words} has {len(data)} raster assets ({', '.join(sorted(data)) or 'none'}): "
                "say with --asset which one holds the imagery, or which ones its bands (--asset red,green,blue)"
            )
        return list(data)
    names = [key.strip() for key in keys.split(",")]
    missing = [key for key in names if key not in assets]
    if missing:
        raise InputError(
            f"{image.words} has no asset {', '.join(map(repr, missing))}; it has {', '.join(sorted(assets)) or 'none'}"
        )
    return names


def _path(image: StacImage, key: str) -> str:
    """Address of the one raster that an asset is: a folder, a list or a pattern would be taken for many."""
    path = (
        make_absolute_href(image.content.assets[key].href, image.base)
        .removeprefix("file://localhost")
        .removeprefix("file://")
    )
    if not is_remote(path):
        path = unquoted_name(path)
        if not is_there(path):
            raise MissingFileError(f"{image.words}: its asset {key!r}, {path[:400]}, does not exist")
        if not (Path(path).is_file() or is_zarr(path)):
            raise InputError(f"{image.words}: its asset {key!r}, {path}, is a folder, not a raster")
    return path

"""Files beside a raster: which of them say something of its pixels, and what.

A viewer leaves statistics, histograms and its own notes in ``.aux.xml``, and overviews in ``.ovr``; nothing that is
read depends on them.
"""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import Element

_OVERVIEWS = ".ovr"
_NOTES = ".aux.xml"

_OF_VIEWERS = frozenset({"Histograms", "GDALRasterAttributeTable", "GeodataXform", "UUID"})
"""Elements that tell how to draw a raster, or what somebody has counted of it."""

_DOMAINS_OF_VIEWERS = frozenset({"Esri", "xml:ESRI", "IMAGE_STRUCTURE"})

_KEYS_OF_VIEWERS = ("STATISTICS_", "LAYER_TYPE", "RepresentationType", "PyramidResamplingType", "SourceColorInfoIndex")


def is_overview(path: str) -> bool:
    """Whether a file holds smaller copies of a raster, which are never read."""
    return path.lower().endswith(_OVERVIEWS)


def is_note(path: str) -> bool:
    """Whether a file is one of GDAL's side-cars, whose meaning is :func:`meaning_of`."""
    return path.lower().endswith(_NOTES)


def meaning_of(content: bytes) -> str:
    """SHA-256 of what a GDAL side-car says of pixels and place, whatever else stands there; empty = nothing.

    What is no XML counts byte for byte.
    """
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError):
        return hashlib.sha256(content).hexdigest()
    _strip(root)
    if not len(root):
        return ""
    return hashlib.sha256(ElementTree.canonicalize(ElementTree.tostring(root), strip_text=True).encode()).hexdigest()


def _strip(element: Element) -> None:
    """Take away what is of viewers, and then what is empty."""
    for child in list(element):
        _strip(child)
        is_empty = child.tag in ("Metadata", "PAMRasterBand") and not len(child)
        if (
            child.tag in _OF_VIEWERS
            or (child.tag == "Metadata" and child.get("domain") in _DOMAINS_OF_VIEWERS)
            or (child.tag == "MDI" and str(child.get("key")).startswith(_KEYS_OF_VIEWERS))
            or is_empty
        ):
            element.remove(child)

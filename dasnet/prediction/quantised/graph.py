"""A quantised graph as bytes: OpenVINO's topology in XML, and its constants; looked at before any runtime sees it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from dasnet.errors import BundleError
from dasnet.prediction.quantised.description import QuantisedDescription

TOPOLOGY, CONSTANTS = "quantised.topology", "quantised.constants"
"""Keys of both parts beside a bundle's weights, (bytes,) uint8 each."""
KEYS = (TOPOLOGY, CONSTANTS)

_OWN = re.compile(r"opset\d+")
_REMEMBERING = ("Assign", "ReadValue")


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantisedGraph:
    """A graph whose integers answer for one date; its bytes are those that are described.

    Attributes:
        topology: operators and how they are joined, XML of OpenVINO's own form.
        constants: their numbers.
    """

    description: QuantisedDescription
    topology: bytes
    constants: bytes

    def __post_init__(self) -> None:
        if (digest := digest_of(self.topology, self.constants)) != self.description.sha256:
            raise BundleError(
                f"the quantised graph has SHA-256 {digest[:12]}…, but the header describes "
                f"{self.description.sha256[:12]}…: the file was changed after it was written"
            )

    def tensors(self) -> dict[str, Tensor]:
        """Both parts by :data:`KEYS`, (bytes,) uint8."""
        return {
            key: torch.from_numpy(np.frombuffer(part, dtype=np.uint8).copy())
            for key, part in zip(KEYS, (self.topology, self.constants), strict=True)
        }


def graph_among(tensors: Mapping[str, Tensor], description: QuantisedDescription | None) -> QuantisedGraph | None:
    """The graph that a bundle's file holds; None = it has none.

    Raises:
        BundleError: there is one that the header does not describe, or the other way round, or it is another.
    """
    present = [key for key in KEYS if key in tensors]
    if description is None and not present:
        return None
    if description is None or len(present) != len(KEYS):
        described = "describes none" if description is None else "describes one"
        raise BundleError(
            f"of a quantised graph the file holds {', '.join(present) or 'nothing'}, the header {described}"
        )
    topology, constants = (tensors[key].numpy().tobytes() for key in KEYS)
    return QuantisedGraph(description=description, topology=topology, constants=constants)


def digest_of(topology: bytes, constants: bytes) -> str:
    """SHA-256 of both parts, hex."""
    return hashlib.sha256(topology + constants).hexdigest()


def require_own_operators(topology: bytes) -> None:
    """Refuse a topology that is none, or has operators of a library, or such that remember; raises BundleError.

    A bundle may be of anybody's making: what it holds runs no code, and answers for a window by that window alone.
    """
    if b"<!DOCTYPE" in topology or b"<!ENTITY" in topology:
        raise BundleError("the quantised graph's topology defines entities, which OpenVINO never writes")
    try:
        layers = list(ElementTree.fromstring(topology).iter("layer"))
    except (ElementTree.ParseError, ValueError) as error:
        raise BundleError(f"the quantised graph's topology is no XML: {error}") from error
    foreign = {
        f"{layer.get('type')} ({layer.get('version')})"
        for layer in layers
        if not _OWN.fullmatch(layer.get("version") or "") or layer.get("type") in _REMEMBERING
    }
    if foreign or not layers:
        named = ", ".join(sorted(foreign)[:8]) or "none"
        raise BundleError(f"the quantised graph has operators that are not taken: {named}")


def anonymous(topology: bytes) -> bytes:
    """A topology without what differs from one making to the next: names that libraries count up, and notes."""
    root = ElementTree.fromstring(topology)
    for number, layer in enumerate(root.iter("layer")):
        layer.set("name", f"layer{number}")
    for port in root.iter("port"):
        port.attrib.pop("names", None)
    for parent in list(root.iter()):
        for note in [child for child in parent if child.tag == "rt_info"]:
            parent.remove(note)
    root.set("name", "quantised")
    return ElementTree.tostring(root)

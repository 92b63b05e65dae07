"""The methods that are networks, by name: from a description to the network it describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dasnet.networks.bidatenet import BiDateNet
from dasnet.networks.cdnet import CDnet
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.dasnet import Architecture, DASNet
from dasnet.networks.dscn import DSCN
from dasnet.networks.fully_convolutional import EarlyFusion, SiameseConcatenation, SiameseDifference
from dasnet.networks.peer import PeerArchitecture, PeerNetwork
from dasnet.networks.sccn import SCCN

Method = Literal["dasnet", "fc-ef", "fc-siam-conc", "fc-siam-diff", "cdnet", "bidatenet", "dscn", "sccn"]
AnyArchitecture = Architecture | PeerArchitecture

PEERS: dict[str, type[PeerNetwork]] = {
    "fc-ef": EarlyFusion,
    "fc-siam-conc": SiameseConcatenation,
    "fc-siam-diff": SiameseDifference,
    "cdnet": CDnet,
    "bidatenet": BiDateNet,
    "dscn": DSCN,
    "sccn": SCCN,
}


def build_network(architecture: AnyArchitecture) -> ChangeNetwork:
    """The network that is described, with fresh weights."""
    if isinstance(architecture, Architecture):
        return DASNet(architecture)
    return PEERS[architecture.method](architecture)


def title_of(architecture: AnyArchitecture) -> str:
    """The method's name for people, with its paper where that is not DASNet's."""
    if isinstance(architecture, Architecture):
        return "DASNet, a Siamese network with dual attention"
    return PEERS[architecture.method].title


def architecture_from_dict(values: Mapping[str, Any]) -> AnyArchitecture:
    """What an architecture's ``to_dict`` gave.

    DASNet's has no method, as in bundles from before there were others.

    Raises:
        ValueError: fields that do not belong to the method, or values that it does not take.
    """
    return PeerArchitecture.from_dict(values) if "method" in values else Architecture.from_dict(values)

"""The methods that are networks, by name: from a description to the network it describes."""

from __future__ import annotations

from dasnet.networks.architectures import AnyArchitecture, Architecture
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.dasnet import DASNet
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.networks.imported.network import ImportedNetwork
from dasnet.networks.peers.bidatenet import BiDateNet
from dasnet.networks.peers.bit import BIT
from dasnet.networks.peers.cdnet import CDnet
from dasnet.networks.peers.changemamba import ChangeMamba
from dasnet.networks.peers.dscn import DSCN
from dasnet.networks.peers.fully_convolutional import EarlyFusion, SiameseConcatenation, SiameseDifference
from dasnet.networks.peers.peer import PeerNetwork
from dasnet.networks.peers.sccn import SCCN
from dasnet.networks.peers.tinycd import TinyCD
from dasnet.networks.precomputed import PrecomputedArchitecture
from dasnet.networks.precomputed_network import PrecomputedNetwork

PEER_NETWORKS: dict[str, type[PeerNetwork]] = {
    "fc-ef": EarlyFusion,
    "fc-siam-conc": SiameseConcatenation,
    "fc-siam-diff": SiameseDifference,
    "cdnet": CDnet,
    "bidatenet": BiDateNet,
    "dscn": DSCN,
    "sccn": SCCN,
    "bit": BIT,
    "tinycd": TinyCD,
    "changemamba": ChangeMamba,
}


def build_network(architecture: AnyArchitecture) -> ChangeNetwork:
    """The network that is described, with fresh weights."""
    if isinstance(architecture, Architecture):
        return DASNet(architecture)
    if isinstance(architecture, ImportedArchitecture):
        return ImportedNetwork(architecture)
    if isinstance(architecture, PrecomputedArchitecture):
        return PrecomputedNetwork(architecture)
    return PEER_NETWORKS[architecture.method](architecture)

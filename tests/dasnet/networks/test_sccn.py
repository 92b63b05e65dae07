"""SCCN: autoencoders first, then one encoder drawn to the other where they agree; labels have no part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from dasnet.losses import MeanCost
from dasnet.methods import build_network
from dasnet.networks.peer import PeerArchitecture
from dasnet.networks.sccn import SCCN
from dasnet.training import CHECKPOINT, HISTORY
from tests.dasnet.training_data import Squares, run_of

OPTIONS = {
    "method": "sccn",
    "loss": "coupling",
    "backbone": "resnet50",
    "head_channels": None,
    "width": 6,
    "rate": 1e-2,
    "seed": 1,
    "epochs": 3,
}


def made(width: int = 6) -> SCCN:
    network = build_network(PeerArchitecture(method="sccn", width=width))
    assert isinstance(network, SCCN)
    return network


def test_parameters_are_those_of_two_encoders_and_their_decoders() -> None:
    side = (9 * 3 * 20 + 20) + 3 * (20 * 20 + 20) + (20 * 3 + 3)  # no count is published: a hand sum
    assert sum(parameter.numel() for parameter in made(20).parameters()) == 2 * side


def test_autoencoding_costs_what_is_not_rebuilt() -> None:
    torch.manual_seed(0)
    network = made().eval()
    before, after = torch.randn(2, 1, 3, 16, 16)
    (cost,) = network.outputs(torch.cat([before, after]))
    rebuilt = network.first_decoder(network.first(before)), network.second_decoder(network.second(after))
    expected = ((rebuilt[0] - before) ** 2).mean(dim=1) + ((rebuilt[1] - after) ** 2).mean(dim=1)
    torch.testing.assert_close(cost, expected)


def test_coupling_minimises_over_weights_of_the_first_date_and_who_is_unchanged() -> None:
    torch.manual_seed(1)
    network = made().eval()
    network.begin_step(0.5)
    before, after = 3 * torch.randn(2, 1, 3, 16, 16)
    (cost,) = network.outputs(torch.cat([before, after]))
    apart = (network.first(before) - network.second(after)).square().sum(dim=1).sqrt()
    torch.testing.assert_close(
        network.distance(network.features(before), network.features(after)), 2 * apart / np.sqrt(6)
    )
    # of all P in [0, 1] none costs less, and P is 1 exactly where the codes lie nearer than λ = 0.2
    tried = torch.stack([share * (apart - 0.2) for share in torch.linspace(0, 1, 11)])
    torch.testing.assert_close(cost, tried.amin(dim=0))
    MeanCost().parts([cost], torch.zeros(1, 16, 16)).sum().backward()
    with_gradient = {name.partition(".")[0] for name, value in network.named_parameters() if value.grad is not None}
    assert with_gradient == {"first"}


def test_labels_have_no_part_in_training_and_the_second_encoder_stays(tmp_path: Path) -> None:
    run_of(tmp_path / "one", **OPTIONS).run()
    other = Squares()
    known = other.label[: other.train] != 255
    other.label[: other.train][known] = 1 - other.label[: other.train][known]
    run_of(tmp_path / "other", source=other, **OPTIONS).run()

    def losses(name: str) -> list[float]:
        lines = [json.loads(line) for line in (tmp_path / name / HISTORY).read_text().splitlines()]
        return [line["loss"] for line in lines if line["kind"] == "step"]

    assert losses("one") == losses("other") and len(losses("one")) == 12
    assert losses("one")[3] < losses("one")[0], "the autoencoders learn"
    assert max(losses("one")[4:]) <= 0, "coupling starts with the second epoch, a third of training"
    run_of(tmp_path / "stopped", **OPTIONS).run(stop_after=5)  # the checkpoint is that of the first epoch's end
    between = torch.load(tmp_path / "stopped" / CHECKPOINT, weights_only=True)["model"]
    ended = torch.load(tmp_path / "one" / CHECKPOINT, weights_only=True)["model"]
    moved = {key.partition(".")[0] for key, value in ended.items() if not torch.equal(value, between[key])}
    assert moved == {"first"}

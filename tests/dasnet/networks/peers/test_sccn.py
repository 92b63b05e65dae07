"""SCCN: autoencoders first, then one encoder drawn to the other where they agree; labels have no part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from dasnet.networks.architectures import PeerArchitecture
from dasnet.networks.methods import build_network
from dasnet.networks.peers.sccn import SCCN
from dasnet.training.directory import BEST, CHECKPOINT, HISTORY
from dasnet.training.losses import MeanCost
from tests.dasnet.training.training_data import Squares, run_of

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


def test_coupling_draws_pixels_of_the_first_date_together_where_they_agree_most() -> None:
    torch.manual_seed(1)
    network = made().eval()
    before, after = 3 * torch.randn(2, 2, 3, 16, 16)
    before[1, :, :8] *= 4  # pairs of different spread have thresholds of their own
    apart = (network.first(before) - network.second(after)).square().sum(dim=1).sqrt()
    torch.testing.assert_close(
        network.distance(network.features(before), network.features(after)), 2 * apart / np.sqrt(6)
    )
    network.begin_step(34, 100)
    (cost,) = network.outputs(torch.cat([before, after]))
    torch.testing.assert_close(cost, apart - 0.2)
    network.begin_step(50, 100)
    (cost,) = network.outputs(torch.cat([before, after]))
    for number in range(2):
        # Otsu's threshold by its definition: of all cuts the one between whose sides the variance is largest
        values = apart[number].detach().flatten().sort().values.double().numpy()
        sizes = np.arange(1, len(values))
        below, above = values.cumsum()[:-1] / sizes, (values.sum() - values.cumsum()[:-1]) / (len(values) - sizes)
        between = sizes * (len(values) - sizes) * (above - below) ** 2
        drawn = int((cost[number] != 0).sum())
        # skimage cuts at one of 256 bins' middles
        assert between[drawn - 1] > 0.995 * between.max()
        assert cost[number][apart[number] <= values[drawn - 1]].ne(0).all()
    # what is without data in one date is far from the other, and would part itself from all the rest
    without = before.clone()
    without[:, :, :, :6] = 0
    (masked,) = network.outputs(torch.cat([without, after]))
    (there,) = network.outputs(torch.cat([before[..., 7:], after[..., 7:]]))
    assert torch.equal(masked[:, :, 8:] != 0, there[:, :, 1:] != 0)
    MeanCost().parts([cost], torch.zeros(2, 16, 16)).sum().backward()
    moved = {name.partition(".")[0] for name, value in network.named_parameters() if value.grad is not None}
    assert moved == {"first"}
    assert all(value.grad.abs().max() > 0 for value in network.first.parameters() if value.grad is not None)


def test_two_encoders_of_the_paper_s_width_agree_nowhere_before_coupling_and_do_after(tmp_path: Path) -> None:
    options = {**OPTIONS, "width": 20, "epochs": 12}
    run_of(tmp_path / "whole", **options).run()
    run_of(tmp_path / "stopped", **options).run(stop_after=16)

    def apart(name: str) -> float:
        """Mean distance of the codes of unchanged pixels."""
        network = made(20)
        network.load_state_dict(torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["model"])
        data = Squares()
        images = [torch.from_numpy(date.astype(np.float32)) / 60 - 1.5 for date in (data.before, data.after)]
        with torch.inference_mode():
            distance = network.distance(*(network.features(date) for date in images))
        return float(distance[torch.from_numpy(data.label == 0)].mean())

    assert apart("whole") < 0.5 * apart("stopped")


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
    assert losses("one")[-1] < losses("one")[5], "what agrees is drawn together"
    run_of(tmp_path / "stopped", **OPTIONS).run(stop_after=5)  # the checkpoint is that of the first epoch's end
    between = torch.load(tmp_path / "stopped" / CHECKPOINT, weights_only=True)["model"]
    ended = torch.load(tmp_path / "one" / CHECKPOINT, weights_only=True)["model"]
    moved = {key.partition(".")[0] for key, value in ended.items() if not torch.equal(value, between[key])}
    assert moved == {"first"}
    best = torch.load(tmp_path / "one" / BEST, weights_only=True)
    assert best["epoch"] > 0, "an epoch of autoencoders is never the best"

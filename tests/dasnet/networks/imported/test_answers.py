"""What a graph answers becomes a distance: by formula, and in its range or not at all."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from scipy.special import expit, softmax

from dasnet.networks.architectures import architecture_from_dict
from dasnet.networks.imported.answers import RangeError, at_every_pixel, distance_of, embedding_distance, embedding_of
from dasnet.networks.imported.description import ImportedArchitecture

ONE = ImportedArchitecture(
    inputs="stacked",
    output="logits",
    distance=None,
    in_bands=3,
    input_names=("x",),
    output_name="y",
    side=64,
    graph_bytes=1,
    graph_sha256="0" * 64,
)
TWO = replace(ONE, channels=2)
scores = np.random.default_rng(0).normal(size=(2, 2, 5, 6)).astype(np.float32) * 4


def test_two_scores_are_a_softmax_whichever_channel_is_changed() -> None:
    expected = 2 * softmax(scores, axis=1)
    for channel in (0, 1):
        found = distance_of(torch.from_numpy(scores), replace(TWO, changed_channel=channel))
        assert np.allclose(found.numpy(), expected[:, channel], atol=1e-6)
        shares = torch.from_numpy(softmax(scores, axis=1))
        same = distance_of(shares, replace(TWO, output="probability", changed_channel=channel))
        assert np.allclose(same.numpy(), expected[:, channel], atol=1e-6)


def test_one_score_is_a_sigmoid_with_or_without_a_channel() -> None:
    single = torch.from_numpy(scores[:, :1])
    assert np.allclose(distance_of(single, ONE).numpy(), 2 * expit(scores[:, 0]), atol=1e-6)
    assert torch.equal(distance_of(single, ONE), distance_of(single[:, 0], ONE))


def test_a_distance_without_an_end_keeps_its_order_and_its_middle() -> None:
    far = torch.tensor([0.0, 0.5, 3.0, 40.0, float("inf")]).reshape(1, 1, 1, 5)
    network = replace(ONE, output="distance", middle=3.0)
    assert distance_of(far, network).flatten().tolist() == pytest.approx([0, 2 * 0.5 / 3.5, 1, 2 * 40 / 43, 2])


@pytest.mark.parametrize(
    ("values", "network", "message"),
    [
        ([0.2, 1.4], replace(ONE, output="probability"), r"in \[0, 1\], but reaches from 0.2 to 1.4"),
        ([-0.2, 0.4], replace(ONE, output="probability"), r"reaches from -0.2 to 0.4"),
        ([-3.0, 1.0], replace(ONE, output="distance"), "reaches down to -3"),
        ([0.0, 7.5], replace(ONE, output="distance"), r"in \[0, 2\], but reaches 7.5.*--middle"),
        ([0.0, float("nan")], ONE, "NaN"),
    ],
)
def test_what_lies_outside_of_its_range_is_refused(
    values: list[float], network: ImportedArchitecture, message: str
) -> None:
    with pytest.raises(RangeError, match=message):
        distance_of(torch.tensor(values).reshape(1, 1, 1, 2), network)


def test_two_probabilities_that_are_not_of_two_classes_are_refused() -> None:
    with pytest.raises(RangeError, match=r"sum is up to 0\.5 away from 1"):
        distance_of(torch.full((1, 2, 3, 3), 0.75), replace(TWO, output="probability"))


@pytest.mark.parametrize(("stride", "offset"), [(4, 0.0), (4, 1.5), (8, 3.5), (2, 0.5)])
def test_positions_lie_where_they_are_said_to(stride: int, offset: float) -> None:
    coarse = np.random.default_rng(1).random((2, 6, 7))
    height, width = 6 * stride, 7 * stride
    fine = at_every_pixel(torch.from_numpy(coarse), stride=stride, offset=offset, height=height, width=width)
    rows, columns = (stride * np.arange(n) + offset for n in (6, 7))
    pixels = np.stack(
        np.meshgrid(
            np.arange(height).clip(rows[0], rows[-1]), np.arange(width).clip(columns[0], columns[-1]), indexing="ij"
        ),
        axis=-1,
    )
    for found, values in zip(fine.numpy(), coarse, strict=True):
        assert np.allclose(found, RegularGridInterpolator((rows, columns), values)(pixels), atol=1e-5)


def test_embeddings_are_compared_as_directions() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn((1, 9, 3, 3), generator=random) * scale for scale in (1, 50))
    network = replace(ONE, inputs="embed", output=None, distance="cosine", channels=9)
    units = [embedding_of(each, network) for each in (a, b)]
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1)
    assert torch.allclose(embedding_distance(*units, network), 1 - cosine, atol=1e-5)
    assert torch.allclose(embedding_distance(*units, replace(network, distance="l2")) ** 2, 2 - 2 * cosine, atol=1e-4)


def test_a_description_is_read_back_as_it_was_written() -> None:
    for network in (ONE, replace(TWO, side=96, multiple=0), replace(ONE, inputs="embed", output=None, distance="l2")):
        assert architecture_from_dict(network.to_dict()) == network
    with pytest.raises(ValueError, match="none of"):
        replace(ONE, inputs="embed")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("side", "64"),
        ("multiple", -1),
        ("offset", float("nan")),
        ("offset", "1"),
        ("middle", 0),
        ("middle", float("inf")),
        ("channels", None),
        ("input_names", ["a", "b"]),
        ("output_name", 3),
        ("input_type", "int8"),
        ("changed_channel", 2),
        ("graph_sha256", None),
    ],
)
def test_a_description_of_somebody_elses_making_is_looked_at(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"must be|is none of|are not"):
        architecture_from_dict({**ONE.to_dict(), name: value})
    with pytest.raises(ValueError, match="an imported network has"):
        architecture_from_dict({**ONE.to_dict(), "code": "import os"})


@pytest.mark.parametrize(("multiple", "window", "message"), [(0, 96, "fixed size of 64"), (32, 80, "multiple of 32")])
def test_windows_that_a_graph_cannot_take_are_named(multiple: int, window: int, message: str) -> None:
    network = replace(ONE, multiple=multiple)
    assert network.refusal(64) is None and (network.refusal(128) is None) == (multiple == 32)
    assert message in str(network.refusal(window))

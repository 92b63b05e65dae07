"""Losses against hand-worked values and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dasnet.networks.dasnet import Distances
from dasnet.networks.decoder import upsample
from dasnet.training.class_frequency import ClassFrequency
from dasnet.training.losses import DoubleMarginLoss, SegmentationLoss
from dasnet.training.recipes import recipe_named
from tiling.conventions import IGNORED


def test_hand_worked_value() -> None:
    loss = DoubleMarginLoss(margin_unchanged=0.3, margin_changed=2.2, weight_unchanged=1.5, weight_changed=4.0)
    distance = torch.tensor([[[0.1, 0.8], [0.5, 1.9]]])
    labels = torch.tensor([[[0, 0], [1, 1]]])
    # unchanged: 0 below the margin, then (0.8 − 0.3)² = 0.25; changed: (2.2 − 0.5)² = 2.89 and (2.2 − 1.9)² = 0.09
    expected = 0.5 * (1.5 * 0.25 + 4.0 * (2.89 + 0.09)) / 4
    assert loss.of_distance(distance, labels).item() == pytest.approx(expected, rel=1e-6)


def test_pixels_without_a_label_have_no_part() -> None:
    loss = DoubleMarginLoss()
    distance = torch.tensor([[[1.0, 0.2, 1.7]]], requires_grad=True)
    labels = torch.tensor([[[0, IGNORED, IGNORED]]])
    value = loss.of_distance(distance, labels)
    assert value.item() == pytest.approx(0.5 * 0.7**2)
    value.backward()
    assert distance.grad is not None
    assert distance.grad.flatten().tolist() == pytest.approx([0.7, 0, 0])
    assert loss.of_distance(distance, torch.full_like(labels, IGNORED)).item() == 0


def test_changed_pairs_are_pushed_apart_and_unchanged_ones_together() -> None:
    """The paper's eq. (5) and (6) as printed would do the opposite to changed pairs."""
    loss = DoubleMarginLoss()
    for label, sign in ((1, -1), (0, 1)):
        distance = torch.tensor([[[1.0]]], requires_grad=True)
        loss.of_distance(distance, torch.tensor([[[label]]])).backward()
        assert distance.grad is not None
        assert np.sign(distance.grad.item()) == sign


def test_gradient_is_the_finite_difference() -> None:
    loss = DoubleMarginLoss(weight_unchanged=0.3, weight_changed=1.7)
    generator = torch.Generator().manual_seed(1)
    distance = 2 * torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (2, 20, 27), generator=generator)
    labels[0, :5] = IGNORED
    assert torch.autograd.gradcheck(lambda d: loss.of_distance(d, labels), distance.requires_grad_())


def test_distances_are_brought_to_the_labels_resolution() -> None:
    loss = DoubleMarginLoss()
    distance = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2
    labels = (torch.arange(32 * 32).reshape(1, 32, 32) % 3 == 0).long()
    fine = upsample(distance, height=32, width=32, stride=8)
    # By NumPy: the mean over all pixels of both terms.
    d, y = fine.numpy().astype(np.float64), labels.numpy()
    expected = 0.5 * np.mean((1 - y) * np.maximum(d - 0.3, 0) ** 2 + y * np.maximum(2.2 - d, 0) ** 2)
    assert loss.of_distance(distance, labels).item() == pytest.approx(expected, rel=1e-5)


def test_deep_supervision_is_the_weighted_sum() -> None:
    generator = torch.Generator().manual_seed(3)
    distances = Distances(*(2 * torch.rand(2, 8, 8, generator=generator) for _ in range(3)))
    labels = torch.randint(0, 2, (2, 64, 64), generator=generator)
    loss = DoubleMarginLoss(supervision=(0.25, 0.0, 0.5))
    expected = 0.25 * loss.of_distance(distances.spatial, labels) + 0.5 * loss.of_distance(distances.fused, labels)
    assert loss(distances, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_contrastive_loss_is_the_one_of_hadsell() -> None:
    loss = recipe_named("paper_cdd", loss="contrastive", margin_changed=1.0).loss_of(
        ClassFrequency(changed=1, unchanged=9)
    )
    assert isinstance(loss, DoubleMarginLoss)
    distance, labels = torch.tensor([[[0.4, 0.4, 1.5]]]), torch.tensor([[[0, 1, 1]]])
    expected = (0.4**2 + (1.0 - 0.4) ** 2 + 0) / 2 / 3
    assert loss.of_distance(distance, labels).item() == pytest.approx(expected)


def test_weights_of_a_recipe_are_those_of_the_split() -> None:
    loss = recipe_named("paper_cdd").loss_of(ClassFrequency(changed=147, unchanged=853))
    assert isinstance(loss, DoubleMarginLoss)
    assert loss.weight_changed / loss.weight_unchanged == pytest.approx((1 / 0.147) / (1 / 0.853))
    assert loss.weight_changed + loss.weight_unchanged == pytest.approx(2)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"margin_unchanged": 1.0, "margin_changed": 0.5}, "1.0.*0.5"),
        ({"weight_changed": -1.0}, "-1.0"),
        ({"margin_changed": float("nan")}, "nan"),
        ({"supervision": (0.0, 0.0, 0.0)}, "positive"),
    ],
)
def test_nonsense_is_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DoubleMarginLoss(**values)  # type: ignore[arg-type]


def test_strange_labels_and_shapes_are_refused() -> None:
    loss = DoubleMarginLoss()
    with pytest.raises(ValueError, match=r"labels are 0, 1 and 255.*7"):
        loss.of_distance(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 7))
    with pytest.raises(ValueError, match="one B"):
        loss.of_distance(torch.zeros(1, 2, 2), torch.zeros(2, 2, 2, dtype=torch.long))


def test_dice_of_one_image_is_worked_out_by_hand() -> None:
    probability = torch.tensor([[[0.9, 0.2], [0.4, 0.7]], [[0.1, 0.1], [0.3, 0.5]]])
    labels = torch.tensor([[[1, 0], [1, 255]], [[0, 0], [0, 0]]])
    loss = SegmentationLoss(cross_entropy=0.0, dice=1.0)
    # the pixel without a label has no part; in the other image nothing has changed
    each = [1 - (2 * 1.3 + 1) / (1.5 + 2 + 1), 1 - 1 / (1.0 + 1)]
    expected = (3 * each[0] + 4 * each[1]) / 7
    assert float(loss.parts([probability.logit()], labels)) == pytest.approx(expected, abs=1e-6)


def test_a_batch_in_two_passes_costs_what_it_costs_in_one() -> None:
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 8, 8, generator=random), torch.randint(0, 2, (4, 8, 8), generator=random)
    labels[0, :3] = 255
    loss = SegmentationLoss(cross_entropy=0.5, dice=1.0, weight_changed=3.0)
    pixels = (labels != 255).sum()
    parts = [loss.parts([logits[part]], labels[part], pixels=pixels) for part in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(parts[0] + parts[1], loss.parts([logits], labels))


def test_log_odds_are_brought_to_the_labels_resolution_and_weighed() -> None:
    coarse, labels = torch.zeros(1, 4, 4), torch.ones(1, 8, 8, dtype=torch.int64)
    loss = SegmentationLoss(supervision=(0.0, 2.0), strides=(8, 2))
    parts = loss.parts([torch.zeros(1, 1, 1), coarse], labels)
    assert parts.tolist() == pytest.approx([0.0, 2 * math.log(2)])


def test_a_distance_wants_its_own_kind_of_loss() -> None:
    recipe = recipe_named("cpu_small", distance="learned", loss="dice", cross_entropy=0.5)
    assert recipe.settings()["cross_entropy"] == 0.5
    assert "cross_entropy" not in recipe_named("cpu_small").identity()
    with pytest.raises(ValueError, match="distance l2 is trained by wdmc or contrastive, not by dice"):
        recipe_named("cpu_small", loss="dice")
    with pytest.raises(ValueError, match="distance learned is trained by cross-entropy or dice, not by wdmc"):
        recipe_named("cpu_small", distance="learned")

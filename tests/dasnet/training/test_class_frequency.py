"""Table I and eq. (7), (8)."""

import pytest

from dasnet.training.class_frequency import ClassFrequency, table_one
from dasnet.training.recipes import Recipe

CDD = {
    "train": (10_000, ClassFrequency(changed=83_981_014, unchanged=571_378_986)),
    "val": (3_000, ClassFrequency(changed=24_676_497, unchanged=171_800_431)),
    "test": (3_000, ClassFrequency(changed=25_411_239, unchanged=171_196_761)),
}
BCDD = {
    "train": (6_096, ClassFrequency(changed=17_071_534, unchanged=382_435_922)),
    "val": (762, ClassFrequency(changed=1_854_764, unchanged=48_083_668)),
    "test": (762, ClassFrequency(changed=2_426_517, unchanged=47_511_915)),
}


def test_table_one_of_the_paper() -> None:
    ratios = {row[0]: row[4] for row in table_one(CDD)}
    assert ratios == {"train": "0.147", "val": "0.144", "test": "0.148", "total": "0.147"}
    total = table_one(CDD)[-1]
    assert total[2:4] == ["134,068,750", "914,376,178"]
    ratios = {row[0]: row[4] for row in table_one(BCDD)}
    assert ratios["total"] == "0.045" and ratios["val"] == "0.039" and ratios["test"] == "0.051"
    assert table_one(BCDD)[-1][2:4] == ["21,352,815", "478,031,505"]


def test_the_rare_class_weighs_more() -> None:
    """Trap 3: w1 = 1 / P_U goes with the unchanged pairs; the sentence after eq. (8) has it the other way round."""
    w1, w2 = CDD["train"][1].weights
    assert w1 == pytest.approx(655_360_000 / 571_378_986) and w2 == pytest.approx(655_360_000 / 83_981_014)
    loss = Recipe.of(class_weights="frequency").loss_of(CDD["train"][1])
    assert (loss.weight_unchanged, loss.weight_changed) == (w1, w2) and w1 < w2


def test_normalised_weights_keep_their_ratio_and_add_up_to_two() -> None:
    frequency = BCDD["train"][1]
    (w1, w2), (n1, n2) = frequency.weights, frequency.normalised_weights
    assert n1 + n2 == pytest.approx(2) and n2 / n1 == pytest.approx(w2 / w1)
    assert n2 == pytest.approx(2 * frequency.share_unchanged)


@pytest.mark.parametrize(("changed", "unchanged"), [(0, 10), (10, 0), (0, 0)])
def test_infinite_weights_are_refused(changed: int, unchanged: int) -> None:
    with pytest.raises(ValueError, match=f"{changed} changed and {unchanged} unchanged"):
        ClassFrequency(changed=changed, unchanged=unchanged).weights  # noqa: B018
    assert "w1_unchanged" not in ClassFrequency(changed=changed, unchanged=unchanged).to_dict()

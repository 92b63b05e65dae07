"""The tables of a comparison: every row is a recipe that fits, and equal recipes are trained once."""

from __future__ import annotations

import pytest

from flows.comparison.request import CompareRequest
from flows.comparison.variants import ABLATIONS


def request(*tables: str, seeds: int = 1) -> CompareRequest:
    return CompareRequest.model_validate(
        {"dataset": "data", "output": "out", "tables": tables, "seeds": seeds, "changes": {"class_weights": "none"}}
    )


@pytest.mark.parametrize("table", ABLATIONS)
def test_rows_of_a_table_are_trainings_of_their_own(table: str) -> None:
    asked = request(table, seeds=2)
    keys = [one.key for variant in asked.variants for one in asked.trainings(variant)]
    assert len(keys) == 2 * len(ABLATIONS[table].variants)  # type: ignore[index]
    assert len(set(keys)) == len(keys)


def test_objectives_are_four_losses_of_one_network_and_share_what_attention_trains() -> None:
    asked = request("objectives", "attention")
    rows = {v.name: asked.trainings(v)[0] for v in asked.variants}
    losses = [rows[v.name].recipe.loss.loss for v in ABLATIONS["objectives"].variants]
    heads = [rows[v.name].recipe.settings()["distance"] for v in ABLATIONS["objectives"].variants]
    assert losses == ["wdmc", "contrastive", "cross-entropy", "dice"]
    assert heads == ["l2", "l2", "learned", "learned"]
    assert rows["WDMC, L2"].key == rows["both"].key
    settings = [one.recipe.settings() for one in (rows[v.name] for v in ABLATIONS["objectives"].variants)]
    same = ("backbone", "attention", "decoder", "head_channels", "rate", "batch", "epochs", "class_weights", "seed")
    assert len({tuple(str(one.get(name)) for name in same) for one in settings}) == 1

"""Recipes: what cannot be said is refused, and what was trained before keeps its name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from dasnet.training.augmentation import Augmentation
from dasnet.training.recipes import SETTINGS, Recipe, RecipeName, recipe_named
from dasnet.training.settings import (
    ContrastiveSettings,
    CouplingSettings,
    CrossEntropySettings,
    DasnetSettings,
    PeerSettings,
    Section,
    WdmcSettings,
)


def test_the_papers_recipes_are_the_papers() -> None:
    cdd, bcdd = recipe_named("paper_cdd"), recipe_named("paper_bcdd")
    assert cdd.loss == WdmcSettings(margin_unchanged=0.3, margin_changed=2.2)
    assert (cdd.optimizer.rate, cdd.sampling.batch, cdd.backbone) == (1e-4, 8, "resnet50")
    assert isinstance(cdd.network, DasnetSettings) and cdd.network.supervision == (1.0, 1.0, 1.0)
    assert cdd.augmentation == Augmentation() and bcdd.optimizer.weight_decay == 5e-5
    ours = {name for name in get_args(RecipeName) if recipe_named(name).network.method == "dasnet"}
    assert ours == {"paper_cdd", "paper_bcdd", "cpu_small", "cpu_pretrained", "gpu_pretrained"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 6, "accumulate": 4}, "a batch of 6 cannot be made of 4"),
        ({"margin_unchanged": 2.5}, "must lie below"),
        ({"supervision": (0.0, 0.0, 0.0)}, "λ are three numbers"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"backbone": "resnet18"}, "resnet50"),
        ({"typo": 1}, "Extra inputs"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.of(**changes)


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        (DasnetSettings, {"width": 4}),
        (PeerSettings, {"method": "fc-ef", "backbone": "vgg16"}),
        (PeerSettings, {"method": "dasnet"}),
        (ContrastiveSettings, {"unchanged_weight": 2.0}),
        (CrossEntropySettings, {"margin_changed": 2.0}),
        (CouplingSettings, {"margin_unchanged": 0.1}),
    ],
)
def test_a_section_has_no_place_for_what_has_no_meaning_there(section: type[Section], settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section(**settings)


def test_sections_and_single_settings_make_one_recipe() -> None:
    made = Recipe(network=PeerSettings(method="dscn", width=8), loss=ContrastiveSettings(margin_changed=1.0), seed=3)
    assert made == Recipe.of(method="dscn", width=8, loss="contrastive", margin_changed=1.0, seed=3)
    assert set(Recipe.of().settings()) == set(SETTINGS) - {"width", "cross_entropy"}
    with pytest.raises(
        ValueError, match="method dasnet is trained by wdmc or contrastive or cross-entropy or dice, not by coupling"
    ):
        Recipe(loss=CouplingSettings())


def test_what_augmentation_has_no_use_for_is_left_out_of_the_identity() -> None:
    plain = recipe_named("cpu_small").identity()
    idle = replace(recipe_named("cpu_small").augmentation, blur=0.0, blur_limit=0.0)
    assert "blur_limit" not in recipe_named("cpu_small", augmentation=idle).identity()["augmentation"]
    assert not {"sharpen", "sharpen_limit", "scale", "mixed_dates"} & plain["augmentation"].keys()
    for changed in ({"sharpen": 0.2}, {"scale": 0.1}, {"mixed_dates": True}, {"blur_limit": 2.0}):
        augmentation = replace(recipe_named("cpu_small").augmentation, **changed)  # type: ignore[arg-type]
        assert recipe_named("cpu_small", augmentation=augmentation).identity() != plain


@pytest.mark.parametrize(
    ("name", "changes", "digest"),
    [
        # of the version before recipes had sections
        ("paper_cdd", {}, "a0860bf5a2d13b4d"),
        ("paper_bcdd", {}, "2b4d8d24062a04e6"),
        ("cpu_small", {}, "91d5197fa24a6b9d"),
        ("fc_ef", {}, "0e2fa7e843416307"),
        ("fc_siam_conc", {}, "f3804985d3b23892"),
        ("fc_siam_diff", {}, "3c4637d19c8c25f0"),
        ("cdnet", {}, "96ea09ee5784a8da"),
        ("bidatenet", {}, "fe5051db37f5a601"),
        ("dscn", {}, "cfa46ae6f1d982d2"),
        ("sccn", {}, "f9c8483830c30103"),
        ("cpu_small", {"loss": "contrastive", "margin_unchanged": 0.2}, "92300f37dd3edca0"),
        ("cpu_small", {"unchanged_weight": 2.0}, "e1d277e9396994ac"),
        ("cpu_small", {"supervision": [0.25, 0.25, 0.5]}, "5134038539303954"),
    ],
)
def test_what_was_trained_before_keeps_its_identity(name: RecipeName, changes: dict[str, Any], digest: str) -> None:
    """Directories and checkpoints are known by it: another one would be trained anew, or refused."""
    identity = recipe_named(name, **changes).identity()
    # but for augmentation that changes values: a training begun with the first version of it is not gone on with
    assert identity.pop("augmentation_version", None) == (2 if name == "cpu_small" else None)
    facts = json.dumps(identity, sort_keys=True)
    assert hashlib.sha256(facts.encode()).hexdigest().startswith(digest)


def test_another_loss_leaves_out_what_the_recipe_says_of_its_own() -> None:
    recipe = recipe_named("cpu_pretrained", distance="learned", loss="dice")
    assert recipe.loss.loss == "dice" and "margin_changed" not in recipe.settings()
    assert recipe_named("cpu_pretrained", loss="contrastive").settings()["margin_changed"] == 2.0
    with pytest.raises(ValueError, match="has no margin_changed"):
        recipe_named("cpu_pretrained", distance="learned", loss="dice", margin_changed=1.5)

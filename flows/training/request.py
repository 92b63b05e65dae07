"""What a user asks of the training flows, checked alike for the command line and the Prefect form."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from dasnet.training.augment import Augmentation
from dasnet.training.recipes import RECIPES, Recipe, RecipeName, recipe_of_method
from flows.cluster.config import ClusterConfig
from flows.run.fields import Frozen, LocalDirectory

if TYPE_CHECKING:

    class RecipeChanges(BaseModel):
        """Every field of a recipe, none of them required."""
else:
    RecipeChanges = create_model(
        "RecipeChanges",
        __config__=ConfigDict(frozen=True, extra="forbid"),
        __doc__="What differs from the recipe of that name; empty fields do not.",
        **{
            name: (
                Annotated[
                    Annotated[field.annotation, Field(), *field.metadata] | None, Field(description=field.description)
                ],
                None,
            )
            for name, field in Recipe.model_fields.items()
            if name not in ("name", "augmentation")
        },
        augmentation=(
            Annotated[
                dict[str, float] | None, Field(description="Strengths of the augmentation that differ, by name.")
            ],
            None,
        ),
    )


class TrainRequest(Frozen):
    """A dataset in, a bundle out."""

    dataset: Annotated[Path, Field(description="Dataset directory, of prepare-dataset.")]
    output: Annotated[
        LocalDirectory, Field(description="Training directory: new, or of the same training, which then goes on.")
    ]
    recipe: Annotated[
        RecipeName,
        Field(description="Where every setting comes from, the method too."),
    ] = "cpu_small"
    changes: Annotated[RecipeChanges, Field(description="Settings that differ from the recipe.")] = RecipeChanges()
    backbone_weights: Annotated[
        Path | None,
        Field(description="Weights for the backbone to start from: torchvision's state dict, .safetensors or .pth."),
    ] = None
    about: Annotated[
        str, Field(description="For the model card: what the data are, their terms, and what limits the model.")
    ] = ""
    name: Annotated[str | None, Field(description="Of the bundle; empty: the output directory's.")] = None
    figures: Annotated[bool, Field(description="Draw what the network sees into the report.")] = True
    cluster: Annotated[ClusterConfig, Field(description="One rank on each worker.")] = ClusterConfig(workers=1)

    @property
    def effective(self) -> Recipe:
        """The recipe with its changes."""
        changes = {name: value for name, value in self.changes.model_dump().items() if value is not None}
        if strengths := changes.get("augmentation"):
            usual = asdict(RECIPES[self.recipe]().augmentation)
            if unknown := sorted(set(strengths) - set(usual)):
                raise ValueError(f"augmentation has {', '.join(usual)}, not {', '.join(unknown)}")
            kinds = {name: type(value) for name, value in usual.items()}
            changed = {name: kinds[name](value) for name, value in strengths.items()}
            changes["augmentation"] = Augmentation(**{**usual, **changed})
        return RECIPES[self.recipe](**changes)

    @model_validator(mode="after")
    def _fits(self) -> TrainRequest:
        method = self.effective.method  # refuses what does not fit together
        if self.backbone_weights is not None and method != "dasnet":
            raise ValueError(f"method {method} has no backbone that {self.backbone_weights} could be loaded into")
        return self


def chosen_recipe(*, model: str | None, recipe: str | None) -> str:
    """The name of the recipe that is meant by a method's name, a recipe's, both or neither.

    Raises:
        ValueError: no such method, or a recipe of another one.
    """
    usual = recipe_of_method(model or "dasnet")
    if model is None or recipe is None:
        return recipe or usual
    if recipe in RECIPES and RECIPES[recipe]().method != model:
        raise ValueError(f"the recipe {recipe} is of {RECIPES[recipe]().method}, not of {model}")
    return recipe


def parsed_changes(assignments: list[str]) -> dict[str, Any]:
    """``["epochs=5", "augmentation.haze=0.4"]`` as nested values; JSON where it parses, else text.

    Raises:
        ValueError: no ``=`` in one of them.
    """
    result: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set takes name=value, not {assignment!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *path, last = name.strip().split(".")
        place = result
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return result

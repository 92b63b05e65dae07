"""What a user asks of the training flows, checked alike for the command line and the Prefect form."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from dasnet.networks.architectures import AnyArchitecture, Architecture, Method, PeerArchitecture, timm_name
from dasnet.networks.encoders.start_weights import IMAGENET
from dasnet.networks.precomputed import PrecomputedArchitecture
from dasnet.training.augmentation import Augmentation
from dasnet.training.recipes import SETTINGS, Recipe, RecipeName, recipe_named, recipe_of_method
from dasnet.training.usual_recipes import PRETRAINED
from flows.cluster.config import AnyCluster, ClusterConfig
from flows.run.fields import POSITIONAL, Cli, Frozen, LocalDirectory, by_name, json_or_text

if TYPE_CHECKING:
    from dasnet.prediction.header import BundleHeader

    class RecipeChanges(BaseModel):
        """Every field of a recipe, none of them required."""
else:
    RecipeChanges = create_model(
        "RecipeChanges",
        __config__=ConfigDict(frozen=True, extra="forbid"),
        __doc__="What differs from the recipe of that name; fields left out do not.",
        **{
            name: (
                Annotated[
                    Annotated[field.annotation, Field(), *field.metadata] | None, Field(description=field.description)
                ],
                None,
            )
            for name, field in SETTINGS.items()
            if name not in ("name", "augmentation")
        },
        augmentation=(
            Annotated[
                dict[str, float] | None,
                Field(description=f"Strengths that differ, by name: {', '.join(asdict(Augmentation()))}."),
            ],
            None,
        ),
    )


class TrainRequest(Frozen):
    """A dataset in, a bundle out."""

    dataset: Annotated[Path, POSITIONAL, Field(description="Dataset directory, of `dasnet prepare`.")]
    output: Annotated[
        LocalDirectory, Field(description="Training directory: new, or of the same training, which then goes on.")
    ]
    model: Annotated[
        Method | None,
        Field(exclude=True, description="Network to train, by its usual recipe; default: the recipe's, or dasnet."),
    ] = None
    recipe: Annotated[
        RecipeName | None,
        Field(description="Where every setting comes from; default: the network's usual one, cpu_small for dasnet."),
    ] = None
    changes: Annotated[
        RecipeChanges,
        Cli(name="set", metavar="NAME=VALUE", is_repeatable=True),
        Field(description="Settings that differ from the recipe, for example epochs=5 or augmentation.haze=0.4."),
        by_name("--set", parse=json_or_text),
    ] = RecipeChanges()
    backbone_weights: Annotated[
        Path | None,
        Cli(metavar="WEIGHTS"),
        Field(
            description="Weights for the encoder to start from: imagenet, for what is installed (extra `pretrained`), "
            "a file named as in timm or torchvision, .safetensors or .pth, or a folder as the Hugging Face hub has it; "
            "default: imagenet for the recipes cpu_pretrained and gpu_pretrained, else random ones."
        ),
    ] = None
    from_bundle: Annotated[
        str | None,
        Cli(name="from", metavar="BUNDLE"),
        Field(
            description="Bundle whose network, bands and weights are gone on from, on this dataset: the name of a "
            "shipped one, or a path. Everything else is by the recipe."
        ),
    ] = None
    about: Annotated[
        str,
        Cli(metavar="FILE", is_file=True, help="Text file for the model card: the data, their terms, and the limits."),
        Field(description="For the model card: what the data are, their terms, and what limits the model."),
    ] = ""
    name: Annotated[str | None, Field(description="Name of the bundle; default: the output directory's.")] = None
    figures: Annotated[bool, Field(description="Draw what the network sees into the report.")] = True
    cluster: Annotated[
        AnyCluster,
        Cli(
            fields={
                "workers": Cli(help="Ranks, one a worker; default: 1, or one a GPU or worker that there is."),
                "lanes": Cli(
                    name="threads",
                    help="Threads of each rank on a CPU; default: its share of the cores. The weights' last bits "
                    "depend on it.",
                ),
            }
        ),
        Field(description="One rank on each worker."),
    ] = ClusterConfig(workers=1)

    @model_validator(mode="before")
    @classmethod
    def _recipe_of_the_model(cls, values: Any) -> Any:
        """With the recipe that is meant."""
        if not isinstance(values, dict):
            return values
        model, recipe = values.get("model"), values.get("recipe")
        if name := values.get("from_bundle"):
            model, recipe = recipe_for_bundle(name, model=model, recipe=recipe)
        return {**values, "recipe": chosen_recipe(model=model, recipe=recipe)}

    @field_validator("cluster", mode="before")
    @classmethod
    def _one_rank_on_cpus(cls, cluster: Any) -> Any:
        """Ranks on one CPU share its cores: more than one are only started where they are asked for."""
        is_local = isinstance(cluster, dict) and cluster.get("kind", "local") == "local"
        return {"workers": 1, **cluster} if is_local else cluster

    @cached_property
    def header(self) -> BundleHeader | None:
        """What the bundle that is gone on from says of itself; None: there is none.

        Raises:
            BundleError: no such bundle.
        """
        from dasnet.prediction.header import read_header

        return None if self.from_bundle is None else read_header(self.from_bundle)

    @property
    def effective(self) -> Recipe:
        """The recipe with its changes, and with the network of the bundle that is gone on from."""
        assert self.recipe is not None
        changes = {name: value for name, value in self.changes.model_dump().items() if value is not None}
        if strengths := changes.get("augmentation"):
            usual = asdict(recipe_named(self.recipe).augmentation)
            if unknown := sorted(set(strengths) - set(usual)):
                raise ValueError(f"augmentation has {', '.join(usual)}, not {', '.join(unknown)}")
            kinds = {name: type(value) for name, value in usual.items()}
            changed = {name: kinds[name](value) for name, value in strengths.items()}
            changes["augmentation"] = Augmentation(**{**usual, **changed})
        if self.header is not None:
            network = network_settings(self.header.architecture, name=str(self.from_bundle))
            other = [name for name, value in network.items() if changes.get(name, value) != value]
            if other:
                raise ValueError(
                    f"bundle {self.from_bundle} has {', '.join(f'{name} {network[name]}' for name in other)}, not "
                    f"{', '.join(str(changes[name]) for name in other)}: a network is gone on with as it is, leave "
                    "that out"
                )
            if network.get("distance") == "learned":
                changes.setdefault("loss", "cross-entropy")
            changes |= network
        return recipe_named(self.recipe, **changes)

    @property
    def weights(self) -> Path | None:
        """The weights that the encoder starts from: those asked for, or those of a recipe for pretrained encoders."""
        if self.from_bundle is not None:
            return None
        if self.backbone_weights is None and self.recipe in PRETRAINED:
            assert self.recipe is not None
            return IMAGENET if self.effective.backbone == recipe_named(self.recipe).backbone else None
        return self.backbone_weights

    @model_validator(mode="after")
    def _fits(self) -> TrainRequest:
        recipe = self.effective  # refuses what does not fit together
        if self.backbone_weights is not None and self.from_bundle is not None:
            raise ValueError(
                f"the encoder starts from the weights {self.backbone_weights} or all of the network from the bundle "
                f"{self.from_bundle}: give one of them"
            )
        if self.backbone_weights is not None and recipe.backbone is None:
            raise ValueError(
                f"method {recipe.network.method} has no backbone that {self.backbone_weights} could be loaded into"
            )
        return self


def network_settings(architecture: AnyArchitecture, *, name: str) -> dict[str, Any]:
    """The settings of a recipe that make the network of a bundle called `name`.

    Raises:
        ValueError: an imported graph, whose weights nobody can train here, or embeddings, which have none.
    """
    if isinstance(architecture, Architecture):
        facts = architecture.to_dict()
        del facts["in_bands"]
        return facts
    if isinstance(architecture, PeerArchitecture):
        return {"width": architecture.width}
    if isinstance(architecture, PrecomputedArchitecture):
        raise ValueError(f"bundle {name} compares embeddings that are there already: there is no network to train")
    raise ValueError(f"bundle {name} holds an imported graph: it computes, but cannot be trained")


def recipe_for_bundle(name: str, *, model: str | None, recipe: RecipeName | None) -> tuple[str, RecipeName]:
    """The method of a bundle that is gone on from, and the recipe for that: the one asked for, else the usual one.

    Raises:
        BundleError: no such bundle.
        ValueError: a bundle of another method, or of none that is trained.
    """
    from dasnet.prediction.header import read_header

    architecture = read_header(name).architecture
    network_settings(architecture, name=name)
    method = architecture.method if isinstance(architecture, PeerArchitecture) else "dasnet"
    if model is not None and model != method:
        raise ValueError(f"bundle {name} is of {method}, not of {model}")
    if recipe is None and isinstance(architecture, Architecture) and timm_name(architecture.backbone):
        return method, "cpu_pretrained"
    return method, recipe or recipe_of_method(method)


def chosen_recipe(*, model: str | None, recipe: RecipeName | None) -> RecipeName:
    """The name of the recipe that is meant by a method's name, a recipe's, both or neither.

    Raises:
        ValueError: no such method, or a recipe of another one.
    """
    usual = recipe_of_method(model or "dasnet")
    if model is None or recipe is None:
        return recipe or usual
    if recipe in get_args(RecipeName) and (method := recipe_named(recipe).network.method) != model:
        raise ValueError(f"the recipe {recipe} is of {method}, not of {model}")
    return recipe

"""What a comparison is asked for, and what must be trained for it: variants of methods, each with a few seeds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from dasnet.baselines.methods import UNTRAINED
from dasnet.networks.architectures import PEERS, require_backbone
from dasnet.networks.encoders.start_weights import start_weights
from dasnet.training.recipes import Recipe, RecipeName, recipe_named, recipe_of_method
from flows.cluster.config import AnyCluster, ClusterConfig
from flows.comparison.directory import ComparisonDirectory
from flows.comparison.variants import _DASNET, ABLATIONS, CHOICES, Table, TableName, Variant, _all_of
from flows.run.fields import POSITIONAL, Cli, Frozen, LocalDirectory, at_commas, by_name, json_or_text
from flows.training.request import TrainRequest


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a comparison; tables that hold the same recipe share it.

    Attributes:
        request: what the flow `train` is asked.
    """

    request: TrainRequest

    @cached_property
    def recipe(self) -> Recipe:
        """With all changes."""
        return self.request.effective

    @property
    def key(self) -> str:
        """Name of its directory."""
        return self.request.output.name


def _require_encoder(name: str) -> str:
    """The name of an encoder as it is, DASNet's or a peer's; raises ValueError for any other."""
    return name if name in {peer.encoder for peer in PEERS.values()} else require_backbone(name)


class CompareRequest(Frozen):
    """A dataset in; tables, curves and pictures of methods on it out."""

    dataset: Annotated[Path, POSITIONAL, Field(description="Dataset directory, of `dasnet prepare`.")]
    output: Annotated[
        LocalDirectory,
        Field(description="Directory of the comparison: new, or of the same dataset; it keeps its trainings."),
    ]
    methods: Annotated[
        tuple[str, ...],
        Cli(metavar="NAME,NAME,…"),
        Field(min_length=1, description=f"Which methods, of {', '.join(CHOICES)}."),
        at_commas(),
    ] = ("dasnet", "siam-conv", *PEERS, *UNTRAINED)
    tables: Annotated[
        tuple[TableName, ...],
        Cli(metavar="NAME,NAME,…"),
        Field(
            min_length=1,
            description="Which tables: methods (Tables V, VI), losses (III), attention (IV), lambda (II), decoder, "
            "training, margins (Figure 7), objectives (losses and heads).",
        ),
        at_commas(),
    ] = ("methods",)
    seeds: Annotated[int, Field(ge=1, le=100, description="Trainings of each, from seed 0 on.")] = 3
    recipe: Annotated[
        RecipeName, Field(description="Recipe of DASNet and its variants; every other method has its own.")
    ] = "cpu_small"
    changes: Annotated[
        dict[str, Any],
        Cli(name="set", metavar="NAME=VALUE", is_repeatable=True),
        Field(
            description="Settings that differ from the recipes, for example epochs=5 for all methods, or "
            "dasnet.backbone=vgg16 for one; `dasnet train --help` has their names."
        ),
        by_name("--set", parse=json_or_text),
    ] = Field(default_factory=dict)
    backbone_weights: Annotated[
        dict[Annotated[str, AfterValidator(_require_encoder)], Path],
        Cli(metavar="BACKBONE=WEIGHTS", is_repeatable=True),
        Field(
            description="Weights that encoders start from, as `dasnet train` takes them, for example vgg16=vgg16.pth "
            "or timm:tf_efficientnet_lite0=imagenet; bit has resnet18, tinycd efficientnet_b4; others: random ones."
        ),
        by_name("--backbone-weights", "backbone=WEIGHTS", is_deep=False),
    ] = Field(default_factory=dict)
    robustness: Annotated[
        bool, Field(description="Also F1 against the strength of pseudo-changes, of each row of the first table.")
    ] = False
    peak: Annotated[
        float,
        Field(
            ge=0,
            description="Highest value of the images, for robustness; 0: the recipes', or their type's, of float32 1.",
        ),
    ] = 0.0
    cluster: Annotated[
        AnyCluster,
        Cli(
            fields={
                "workers": Cli(help="Worker processes; each trains one network at a time."),
                "lanes": Cli(
                    name="threads", help="Threads of each training on a CPU; default: its share of the cores."
                ),
            }
        ),
        Field(description="Each worker trains one network at a time."),
    ] = ClusterConfig()

    @model_validator(mode="after")
    def _fits(self) -> CompareRequest:
        for name in self.methods:
            if name not in CHOICES:
                raise ValueError(f"no method is called {name!r}: there are {', '.join(CHOICES)}")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"each method once, not {', '.join(self.methods)}")
        if "methods" not in self.tables and self.methods != type(self).model_fields["methods"].default:
            raise ValueError(
                f"the table methods, whose rows {', '.join(self.methods)} would be, is not asked for, but "
                f"{', '.join(self.tables)}: add it to the tables, or leave methods out"
            )
        if recipe_named(self.recipe).network.method != "dasnet":
            raise ValueError(f"{self.recipe} is a recipe of another method than DASNet, which has its own already")
        trainings = [one for variant in self.variants for one in self.trainings(variant)]  # refuses what does not fit
        backbones = {one.recipe.backbone for one in trainings}
        if idle := set(self.backbone_weights) - backbones:
            raise ValueError(
                f"weights are given for {', '.join(sorted(idle))}, but no network of this comparison has that backbone"
            )
        return self

    @cached_property
    def contents(self) -> dict[TableName, Table]:
        """The tables that were asked for, in order."""
        tables: dict[TableName, Table] = {}
        for name in self.tables:
            if name == "methods":
                variants = tuple(
                    Variant(
                        name=method, method="dasnet" if method in _DASNET else method, changes=_DASNET.get(method, {})
                    )
                    for method in self.methods
                )
                tables[name] = Table(title="Methods", paper="Tables V and VI", variants=variants)
            else:
                tables[name] = ABLATIONS[name]
        return tables

    @property
    def variants(self) -> list[Variant]:
        """All rows of all tables."""
        return [variant for table in self.contents.values() for variant in table.variants]

    @cached_property
    def _digests(self) -> dict[tuple[Path, str], str]:
        return {}

    def _digest(self, weights: Path, backbone: str) -> str:
        """SHA-256 of the file that a backbone starts from."""
        try:
            if (weights, backbone) not in self._digests:
                self._digests[weights, backbone] = start_weights(weights, backbone).sha256
            return self._digests[weights, backbone]
        except OSError as error:
            raise ValueError(f"weights of a backbone cannot be read: {error}") from error

    def trainings(self, variant: Variant) -> list[Training]:
        """Its trainings, one a seed; none for a method without training.

        Raises:
            ValueError: settings that do not fit the method, or a backbone's weights that cannot be read.
        """
        if not variant.is_trained:
            return []
        recipe = self.recipe if variant.method == "dasnet" else recipe_of_method(variant.method)
        changes = _all_of(self._settings(variant.method), variant.changes)
        if "seed" in changes:
            raise ValueError("a comparison has seeds 0, 1, …: leave seed out, and say how many by --seeds")
        trainings = []
        for seed in range(self.seeds):
            request = {
                "dataset": self.dataset,
                "recipe": recipe,
                "changes": {**changes, "seed": seed},
                "figures": False,
            }
            try:
                drafted = TrainRequest.model_validate({**request, "output": self.output})
            except ValidationError as error:
                wrong = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors())
                raise ValueError(
                    f"{variant.name}: {wrong}. A setting of one method alone is written with its name, for example "
                    f"--set {variant.method}.epochs=5"
                ) from error
            facts = drafted.effective.identity()
            update: dict[str, Any] = {}
            backbone = drafted.effective.backbone
            weights = drafted.weights if backbone is None else self.backbone_weights.get(backbone, drafted.weights)
            if weights is not None and backbone is not None:
                facts["backbone_weights"] = self._digest(weights, backbone)
                update["backbone_weights"] = weights
            digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
            key = f"{variant.method}-seed{seed}-{digest[:10]}"
            update["output"] = ComparisonDirectory(self.output).trainings / key
            trainings.append(Training(request=drafted.model_copy(update=update)))
        return trainings

    def _settings(self, method: str) -> dict[str, Any]:
        """Those for all methods, and over them those for this one."""
        scopes = ("dasnet", *PEERS)
        common = {name: value for name, value in self.changes.items() if name not in scopes}
        own = self.changes.get(method, {})
        if not isinstance(own, dict):
            raise ValueError(f"settings of {method} are given by name, as {method}.epochs=5, not as {own!r}")
        return _all_of(common, own)

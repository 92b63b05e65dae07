"""What every network beside DASNet promises: any bands, every pixel, one date at a time, bundles, learning, resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from dasnet.errors import BundleError
from dasnet.networks.architectures import PEERS, PeerArchitecture, architecture_from_dict
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.methods import PEER_NETWORKS, build_network
from dasnet.networks.peers.peer import SegmentationNetwork
from dasnet.prediction.bundle import build_model, load_bundle, random_bundle, save_bundle
from dasnet.prediction.calibration import Calibration
from dasnet.prediction.folding import fold_normalisation
from dasnet.prediction.predictor import DasnetPredictor
from dasnet.training.augmentation import Augmentation
from dasnet.training.directory import CHECKPOINT, HISTORY
from dasnet.training.losses import SegmentationLoss
from dasnet.training.recipes import Recipe, recipe_named, recipe_of_method
from dasnet.training.trained_bundle import bundle_of
from tests.dasnet.prediction.blocks import SIZE, by_blocks, scene, whole
from tests.dasnet.training.training_data import Squares, run_of, run_two_ranks

METHODS = sorted(PEERS)
QUICK = ("fc-siam-diff", "sccn")
"""The others take longer to show the same."""

SEGMENTING = [method for method in METHODS if issubclass(PEER_NETWORKS[method], SegmentationNetwork)]


def architecture(method: str, *, bands: int = 3, width: int = 4) -> PeerArchitecture:
    return PeerArchitecture(method=method, in_bands=bands, width=width)


def distance(network: ChangeNetwork, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return network.distance(network.features(before), network.features(after))


@pytest.mark.parametrize("size", [(64, 64), (33, 75)], ids=["even", "odd"])
@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize("method", METHODS)
def test_every_pixel_has_a_distance_from_0_to_2(method: str, bands: int, size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    network = build_network(architecture(method, bands=bands)).eval()
    before, after = torch.randn(2, 2, bands, *size)
    found = distance(network, before, after)
    assert network.stride == 1 and found.shape == (2, *size) and found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 2 and found.std() > 0


def quick_first(methods: Sequence[str]) -> list[Any]:
    return [method if method in QUICK else pytest.param(method, marks=pytest.mark.slow) for method in methods]


@pytest.mark.parametrize("method", [method for method in METHODS if method != "sccn"])  # has phases: test_sccn.py
def test_training_sees_what_prediction_sees(method: str) -> None:
    """Both dates in one batch, as in training, give what two dates one after the other give."""
    torch.manual_seed(2)
    network = build_network(architecture(method)).eval()
    before, after = torch.randn(2, 3, 3, 48, 48)
    outputs = network.outputs(torch.cat([before, after]))
    assert len(outputs) == len(network.parts)
    one = outputs[-1].float()
    expected = 2 * torch.sigmoid(one) if method in SEGMENTING else one
    torch.testing.assert_close(distance(network, before, after), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", SEGMENTING)
def test_half_the_distance_is_the_softmax_of_two_scores(method: str) -> None:
    torch.manual_seed(3)
    network = build_network(architecture(method)).eval()
    assert isinstance(network, SegmentationNetwork)
    before, after = (network.features(date) for date in torch.randn(2, 1, 3, 32, 32))
    probability = F.softmax(network.scores(before, after), dim=1)[:, 1]
    torch.testing.assert_close(network.distance(before, after) / 2, probability)


@pytest.mark.parametrize("method", METHODS)
def test_folding_normalisation_changes_nothing(method: str) -> None:
    bundle = random_bundle(architecture(method), seed=4)
    plain, folded = build_model(bundle), build_model(bundle)
    fold_normalisation(folded, in_bands=3)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    before, after = torch.randn(2, 1, 3, 40, 40)
    torch.testing.assert_close(distance(folded, before, after), distance(plain, before, after), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("method", "precision"),
    [*((method, "float32") for method in METHODS), *((method, "bfloat16") for method in QUICK), ("cdnet", "bfloat16")],
)
def test_the_same_bytes_whichever_way_the_grid_is_cut(method: str, precision: Any) -> None:
    bundle = replace(random_bundle(architecture(method), seed=5), window=SIZE)
    bundle = replace(bundle, calibration=Calibration(slope=6.0, intercept=-4.0))
    images, valid = scene(3)
    predictor = DasnetPredictor(bundle, precision=precision)
    expected = whole(predictor, images, valid)
    assert len(np.unique(expected.probability)) > 3
    mosaic, _ = by_blocks(predictor, images, valid, size=90)
    np.testing.assert_array_equal(mosaic, expected.probability)
    # the second pair of three dates is the pair of the last two: other dates have no part in it
    two = whole(predictor, images[1:], valid[1:])
    np.testing.assert_array_equal(two.probability[0], expected.probability[1])


@pytest.mark.parametrize("method", METHODS)
def test_a_bundle_comes_back_as_the_network_it_was(method: str, tmp_path: Path) -> None:
    made = random_bundle(architecture(method, bands=2), seed=6)
    loaded = save_bundle(tmp_path / "b.safetensors", made, half=False)
    assert loaded.architecture == made.architecture == load_bundle(tmp_path / "b.safetensors").architecture
    before, after = torch.randn(2, 1, 2, 32, 32)
    assert torch.equal(distance(build_model(loaded), before, after), distance(build_model(made), before, after))


def test_a_bundle_of_one_method_is_not_opened_as_another() -> None:
    made = random_bundle(architecture("fc-siam-diff"))
    with pytest.raises(BundleError, match=r"weights do not fit .*method='fc-siam-conc'.* instead of"):
        replace(made, architecture=architecture("fc-siam-conc"))
    with pytest.raises(BundleError, match=r"weights do not fit .*width=8.* instead of"):
        replace(made, architecture=architecture("fc-siam-diff", width=8))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "fc-ef", "in_bands": 3, "width": 16, "attention": "both"}, "of method 'fc-ef' has .*'attention'"),
        ({"method": "fc-ef", "in_bands": 3}, "of method 'fc-ef' has .*'width'"),
        ({"method": "fc-what", "in_bands": 3, "width": 16}, "method 'fc-what' is none of dasnet, "),
        ({"method": "fc-ef", "in_bands": 0, "width": 16}, "in_bands must be 1 or more, not 0"),
        ({"backbone": "vgg16", "width": 16}, "an architecture has"),
    ],
)
def test_architectures_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        architecture_from_dict(values)


# --- training -----------------------------------------------------------------------------------------------------


def small(method: str, **changes: Any) -> dict[str, Any]:
    """A recipe's method and loss, everything else as tests/dasnet/training/training_data.py has it."""
    usual = recipe_named(recipe_of_method(method)).settings()
    names = ("method", "loss", "dropout", "class_weights")
    clear = {"backbone": "resnet50", "head_channels": None}
    return {**clear, **{name: usual[name] for name in names}, "width": 4, **changes}


def losses(directory: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (directory / HISTORY).read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]


@pytest.mark.parametrize("method", METHODS)
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(method: str, tmp_path: Path) -> None:
    options = small(method, epochs=2, ema=0.5, accumulate=2)
    run_of(tmp_path / "whole", **options).run()
    run_of(tmp_path / "stopped", **options).run(stop_after=3)
    run_of(tmp_path / "stopped", **options).run()
    one, other = (torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "stopped"))
    assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bidatenet", "changemamba", "fc-siam-diff", "sccn"])
def test_two_ranks_have_the_loss_of_one_process(method: str, tmp_path: Path) -> None:
    """With single values dropped, whole branches, whole channels, and with weights that a step leaves alone."""
    options = small(method, epochs=2, batch=8)
    run_of(tmp_path / "one", **options).run()
    run_two_ranks(tmp_path / "two", **options)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 4
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)
    assert [step["loss"] for step in two] == pytest.approx([step["loss"] for step in one], rel=5e-2, abs=1e-3)


@pytest.mark.parametrize("method", quick_first(METHODS))
def test_it_learns_squares_and_ends_in_a_bundle(method: str, tmp_path: Path) -> None:
    source = Squares(train=4, val=4)
    source.before[4:], source.after[4:], source.label[4:] = source.before[:4], source.after[:4], source.label[:4]
    source.valid[4:] = source.valid[:4]
    options = small(
        method, epochs=6, samples_per_epoch=32, rate=1e-2, dropout=0.0, augmentation=Augmentation(flips=False)
    )
    run = run_of(tmp_path, source=source, **options)
    assert run.run().best_f1 > 0.9  # 0.4 if all is called changed
    trained = bundle_of(run, tmp_path / "bundle.safetensors")
    bundle = load_bundle(tmp_path / "bundle.safetensors")
    assert bundle.architecture == architecture(method) and bundle.calibration.slope > 0
    assert trained.validation.f1 > 0.85
    found = DasnetPredictor(bundle, precision="float32").distances(
        np.stack([source.before[:1], source.after[:1]], axis=1), source.valid[:1]
    )
    called = found[0, 0] >= bundle.cut
    assert (called == (source.label[0] == 1)).mean() > 0.9


def test_cross_entropy_is_torchs_up_to_the_weights_mean() -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(2, 2, 8, 8), torch.randint(0, 2, (2, 8, 8))
    labels[0, 0] = 255
    loss = SegmentationLoss(weight_unchanged=0.4, weight_changed=1.6)
    weights = torch.tensor([0.4, 1.6])
    summed = F.cross_entropy(scores, labels, weight=weights, ignore_index=255, reduction="sum")
    (found,) = loss.parts([scores[:, 1] - scores[:, 0]], labels)
    torch.testing.assert_close(found, summed / (labels != 255).sum())
    with pytest.raises(ValueError, match="labels are 0, 1 and 255"):
        loss.parts([scores[:, 0]], labels + 3)
    with pytest.raises(ValueError, match="one shape"):
        loss.parts([scores[:, 0, ::2]], labels)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_recipe_of_its_own(method: str) -> None:
    recipe = recipe_named(recipe_of_method(method))
    assert recipe.network.method == method and recipe.network.architecture(5) == PeerArchitecture(
        method=method, in_bands=5, width=PEERS[method].default_width
    )
    assert "backbone" not in recipe.settings() and recipe.loss.loss == PEERS[method].losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "fc-ef"}, "method fc-ef is trained by cross-entropy or dice, not by wdmc"),
        ({"method": "fc-ef", "loss": "cross-entropy", "backbone": "vgg16", "margin_changed": 1.0}, "no backbone, marg"),
        ({"loss": "cross-entropy"}, "distance l2 is trained by wdmc or contrastive, not by cross-entropy"),
        ({"width": 8}, "method dasnet trained by wdmc has no width"),
    ],
)
def test_recipes_of_another_method_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.of(**changes)

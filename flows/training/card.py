"""The card of a trained bundle: what it was trained on, how well it does, beside what, and what it cannot do."""

from __future__ import annotations

import textwrap

from dasnet.networks.architectures import AnyArchitecture, Architecture, PeerArchitecture, title_of
from dasnet.prediction.bundle import Bundle
from dasnet.prediction.header import BundleHeader
from dasnet.training.recipes import Recipe
from dasnet.training.settings import ContrastiveSettings, WdmcSettings
from flows.evaluation.samples import PEER_HEADER, peer_rows
from flows.training.job import Outcome
from storage.pages.page import markdown_table


def model_card(outcome: Outcome) -> str:
    """Markdown, wrapped at 120 columns."""
    job, trained, score = outcome.job, outcome.trained, outcome.test
    recipe, store = job.recipe, job.store
    weights = "from scratch" if job.start is None else f"of the encoder from {job.start}"
    if (header := job.request.header) is not None:
        weights = f"from {_bundle(header)}"
    bundle = trained.bundle
    sections = [f"# {job.name}", _network(bundle), "## Trained on"]
    if job.request.about:
        sections.append(job.request.about)
    counts = store.attrs["counts"]
    sections.append(
        f"{counts['train']['samples']:,} samples of {store.window} × {store.window} px, "
        f"{counts['train']['share_changed']:.2%} of their pixels changed; validation {counts['val']['samples']:,}, "
        f"test {counts['test']['samples']:,} samples. Dataset SHA-256 {store.digest}. Recipe {recipe.name}, weights "
        f"{weights}: {outcome.progress.epoch} epochs of batches of {recipe.sampling.batch}, the best at epoch "
        f"{trained.epoch + 1}; loss {_loss(recipe)}."
    )
    sections.append("## Measured")
    sections.append(
        f"The threshold, {bundle.threshold:.3f} on the probability, is the one of the highest F1 on validation "
        f"({trained.validation.f1:.3f}); the calibration was fitted there too (expected calibration error "
        f"{trained.after.error:.3f}; {trained.before.error:.3f} if half the distance is read as a probability)."
    )
    if score is None:
        sections.append("The dataset has no test split with both classes.")
    else:
        sections.append("On the test split, from totals of pixels:")
        sections.append(markdown_table(PEER_HEADER, peer_rows(score, f"**{job.name}**")))
        f1 = score.intervals["f1"]
        sections.append(
            f"F1 at the frozen threshold {f1.value:.3f}, 95 % interval {f1.low:.3f} – {f1.high:.3f} by the bootstrap "
            f"over {score.images}. The highest F1 that any threshold reaches on the test split itself is "
            f"{score.highest[1].f1:.3f}. IoU {score.confusion.iou:.3f}, kappa {score.confusion.kappa:.3f}, area under "
            f"the ROC curve {score.curves.roc_area:.3f}, expected calibration error {score.reliability.error:.3f}."
        )
    stride = bundle.architecture.stride
    blind = (
        f"The network sees positions {stride} px apart: outlines are smooth, and what is narrower than about {stride} "
        "px can be missed. "
    )
    sections += [
        "## Limits",
        (blind if stride > 1 else "")
        + "It knows imagery like that which it was trained on, at that ground resolution.",
    ]
    return "\n\n".join(text if text[0] in "#|" else textwrap.fill(text, 120) for text in sections) + "\n"


def _bundle(header: BundleHeader) -> str:
    """The bundle that a training went on from, with what it had seen and started from itself."""
    dataset, start = (header.provenance.get(name) or {} for name in ("dataset", "backbone_weights"))
    seen = f", trained on {dataset['name']}" if "name" in dataset else ""
    origin = start.get("package") or start.get("file")
    before = f", whose encoder came from {origin} ({start.get('licence', 'licence not declared')})" if origin else ""
    name = "a bundle" if header.path is None else f"the bundle {header.path.name}"
    return f"{name} (SHA-256 {header.digest[:8]}…{seen}{before})"


def _loss(recipe: Recipe) -> str:
    match recipe.loss:
        case WdmcSettings(margin_unchanged=m1, margin_changed=m2):
            return f"wdmc with m1 {m1}, m2 {m2}"
        case ContrastiveSettings(margin_changed=margin):
            return f"contrastive with the margin {margin}"
        case other:
            return other.loss


def _network(bundle: Bundle) -> str:
    resolution = "unknown ground resolution" if bundle.resolution is None else f"{bundle.resolution:g} m a pixel"
    return (
        f"{_described(bundle.architecture)}. Bands: {', '.join(band.name for band in bundle.bands)}, {bundle.dtype}, "
        f"{resolution}; windows of {bundle.window} px."
    )


def _described(network: AnyArchitecture) -> str:
    if isinstance(network, PeerArchitecture):
        return f"{title_of(network)}, {network.width} channels at full resolution"
    assert isinstance(network, Architecture), "nobody trains an imported graph, or embeddings as they are"
    attention = {"both": "spatial and channel attention", "none": "no attention"}.get(
        network.attention, f"{network.attention} attention"
    )
    decoder = "" if network.decoder == "none" else f"decoded to {network.decoder} resolution, "
    return f"DASNet with the backbone {network.backbone}, {attention}, {decoder}{network.distance} distance"

"""Import of the checkpoints that the DASNet authors released: their keys become ours, and nothing else changes.

Our head and encoders carry the authors' names, so the mapping is one of prefixes. What their forward pass never uses
(ImageNet classifiers, ``embedding_layer``) is left out.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dasnet.errors import BundleError
from dasnet.networks.architectures import Architecture, BackboneName
from dasnet.prediction.bundle import Bundle, save_bundle
from dasnet.prediction.calibration import NOT_CALIBRATED, UNCALIBRATED, Calibration
from dasnet.prediction.header import Band

_PREFIXES: dict[BackboneName, tuple[tuple[str, str], ...]] = {
    "resnet50": ((r"CNN\.pretrained\.", "backbone."), (r"CNN\.head\.", "head.")),
    "vgg16": ((r"CNN\.(?=conv[1-5]\.)", "backbone."), (r"CNN\.", "head.")),
}
_FIRST_CONVOLUTION: dict[BackboneName, str] = {"resnet50": "backbone.conv1.weight", "vgg16": "backbone.conv1.0.weight"}
_UNUSED = re.compile(r"(backbone\.fc|head\.fc[67]_\d|head\.embedding_layer)\.")

# The authors subtract the mean of each date and keep the range of 0 to 255; a series of more than two dates has no
# first and second date, so the mean of both stands for each. Blue, green, red of their configuration for CDD.
_DATE_MEANS = {"blue": (87.72, 120.24), "green": (100.2, 127.93), "red": (90.43, 121.18)}
CDD_BANDS = tuple(Band(name=name, mean=sum(means) / 2, std=1.0) for name, means in _DATE_MEANS.items())
"""What the networks released for CDD take: 8-bit blue, green, red."""

_CARD = """# DASNet as its authors released it

Imported from `{name}` (its SHA-256 is in the provenance), {backbone}.

{calibration}

The authors subtract a mean for each of the two dates; here both dates lose the average of the two.
"""


_CHOSEN = f"""Its distance is {NOT_CALIBRATED}: probability 0.5 stands at distance 1, the middle of the range,
which is a choice and not a measurement. Fit calibration and threshold on validation data before you use it."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pth file, whether bare or under ``state_dict``. Only tensors are unpickled, never code.

    Raises:
        BundleError: no such file, no checkpoint, or one that holds more than tensors and plain containers.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BundleError(f"{path} is no checkpoint that can be read without running code: {reason}") from error
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise BundleError(f"{path} holds no state dict (a {type(content).__name__} of other things than tensors)")
    return dict(content)


def convert_state(state: Mapping[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]]:
    """The authors' state dict as ours, with the architecture it belongs to.

    Names are mapped and unused tensors left out; whether what remains fits is checked where a bundle is made of it.

    Raises:
        BundleError: neither the authors' ResNet50 nor their VGG16 layout.
    """
    state = {re.sub(r"^module\.", "", key): value for key, value in state.items()}
    backbone: BackboneName = "resnet50" if any(key.startswith("CNN.pretrained.") for key in state) else "vgg16"
    converted = {_renamed(key, backbone): value for key, value in state.items()}
    converted = {key: value for key, value in converted.items() if not _UNUSED.match(key)}
    first, last = _FIRST_CONVOLUTION[backbone], "head.conv8.1.weight"
    if first not in converted or last not in converted:
        raise BundleError(
            f"not the layout of the authors' networks: of {len(state)} keys none stands for "
            f"{first if first not in converted else last} ({', '.join(sorted(state)[:4])} …)"
        )
    # Checkpoints written before torch 0.4.1 do not count the batches.
    for key in [key for key in converted if key.endswith("running_mean")]:
        counter = key.replace("running_mean", "num_batches_tracked")
        converted.setdefault(counter, torch.zeros((), dtype=torch.int64))
    architecture = Architecture(
        backbone=backbone, in_bands=converted[first].shape[1], head_channels=converted[last].shape[0]
    )
    return architecture, converted


def import_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    *,
    bands: tuple[Band, ...] = CDD_BANDS,
    calibration: Calibration | None = None,
    threshold: float = 0.5,
) -> Path:
    """Write a bundle from a checkpoint of the authors; return its path.

    Args:
        bands: what the network was trained on; the default is right for the authors' CDD networks.
        calibration: None puts probability 0.5 at distance 1, the middle of the range, and the card says so.
        threshold: on the probability.

    Raises:
        BundleError: unreadable, another layout, or tensors missing or left over (listed).
    """
    checkpoint = Path(checkpoint)
    architecture, state = convert_state(read_checkpoint(checkpoint))
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    try:
        bundle = Bundle(
            state=state,
            architecture=architecture,
            bands=bands,
            dtype="uint8",
            threshold=threshold,
            calibration=calibration or UNCALIBRATED,
            window=256,
            provenance={"imported_from": checkpoint.name, "sha256": digest, "calibrated": calibration is not None},
            card=_CARD.format(
                name=checkpoint.name,
                backbone=architecture.backbone,
                calibration=_CHOSEN if calibration is None else "Its distance was calibrated at the import.",
            ),
        )
    except BundleError as error:
        raise BundleError(f"{checkpoint}: {error}") from error
    path = save_bundle(output, bundle, half=False).path
    assert path is not None
    return path


def _renamed(key: str, backbone: BackboneName) -> str:
    for pattern, prefix in _PREFIXES[backbone]:
        renamed, count = re.subn(f"^{pattern}", prefix, key)
        if count:
            return renamed
    return key

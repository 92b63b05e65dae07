"""Networks that their own code has exported answer as a bundle what they answer themselves, on the same windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from dasnet.errors import BundleError
from dasnet.networks.architectures import AnyArchitecture, Architecture, PeerArchitecture
from dasnet.prediction.bundle import Bundle, build_model, load_bundle, random_bundle
from dasnet.prediction.header import TRUSTED
from dasnet.prediction.importing.description import Reading
from dasnet.prediction.importing.onnx_bundle import import_model
from dasnet.prediction.predictor import DasnetPredictor
from flows.inference.model import bundle_model
from tests.dasnet.graphs import Embedding, Siamese, Stacked, export

SIDE = 64


def map_of(bundle: Bundle) -> NDArray[np.float32]:
    images = np.random.default_rng(3).integers(0, 256, (3, 2, 3, SIDE, SIDE), dtype=np.uint8)
    images[:, 1, :, :, : SIDE // 2] = images[:, 0, :, :, : SIDE // 2]
    valid = np.ones((3, 2, SIDE, SIDE), dtype=np.bool_)
    valid[1, 0, :9] = False
    return DasnetPredictor(bundle, precision="float32").distances(images, valid)[:, 0]


@pytest.mark.parametrize(
    ("architecture", "module", "inputs", "asked"),
    [
        (PeerArchitecture(method="fc-siam-diff", width=8), Siamese, 2, {"inputs": "siamese", "output": "logits"}),
        (PeerArchitecture(method="fc-siam-conc", width=8), Siamese, 2, {"inputs": "siamese", "output": "logits"}),
        (PeerArchitecture(method="fc-ef", width=8), Stacked, 1, {"inputs": "stacked", "output": "probability"}),
        (PeerArchitecture(method="bidatenet", width=4), Stacked, 1, {"inputs": "stacked", "output": "probability"}),
        (
            Architecture(backbone="mobilenet_v3", head_channels=16, distance="cosine"),
            Embedding,
            1,
            {"inputs": "embed", "distance": "cosine", "offset": 0.0},
        ),
        (
            Architecture(backbone="mobilenet_v3", head_channels=16, decoder="half", attention="none"),
            Embedding,
            1,
            {"inputs": "embed", "distance": "l2", "offset": 0.0},
        ),
    ],
    ids=lambda value: getattr(value, "method", getattr(value, "backbone", None)),
)
def test_the_map_of_an_exported_network_is_its_own(
    architecture: AnyArchitecture, module: Any, inputs: int, asked: dict[str, Any], tmp_path: Path
) -> None:
    own = random_bundle(architecture, window=SIDE, seed=1)
    bands = 6 if module is Stacked else 3
    file = export(tmp_path / "g.onnx", module(build_model(own)), *[(1, bands, SIDE, SIDE)] * inputs)
    reading = Reading(**asked, bands=own.bands, window=SIDE)
    imported = import_model(file, tmp_path / "b.safetensors", reading).bundle
    expected, found = map_of(own), map_of(imported)
    assert expected.std() > 0.01
    assert np.abs(found - expected).max() < 1e-4


def test_which_date_is_the_first_is_said(tmp_path: Path) -> None:
    own = random_bundle(PeerArchitecture(method="fc-siam-conc", width=4), window=SIDE)
    file = export(tmp_path / "g.onnx", Siamese(build_model(own)), *[(1, 3, SIDE, SIDE)] * 2)
    reading = Reading(inputs="siamese", output="logits", bands=own.bands, window=SIDE)
    swapped = replace(reading, input_names=("image1", "image0"))
    maps = [map_of(import_model(file, tmp_path / "b.safetensors", each).bundle) for each in (reading, swapped)]
    assert np.abs(maps[0] - map_of(own)).max() < 1e-4 < np.abs(maps[1] - maps[0]).max()


def test_answers_of_the_networks_own_code_are_asked_for_their_like(tmp_path: Path) -> None:
    own = random_bundle(PeerArchitecture(method="fc-siam-diff", width=4), window=SIDE)
    module = Siamese(build_model(own)).eval()
    file, npz, output = (
        export(tmp_path / "g.onnx", module, *[(1, 3, SIDE, SIDE)] * 2),
        tmp_path / "a.npz",
        tmp_path / "b",
    )
    images = torch.randn((2, 2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        answer = module(*images).numpy()
    given = {"image0": images[0].numpy(), "image1": images[1].numpy(), "answer": answer}
    reading = Reading(inputs="siamese", output="logits", bands=own.bands, window=SIDE)
    np.savez(npz, **given)
    card = import_model(file, output, reading, expected=npz).bundle.card
    assert "held against those of the network's own code: at most" in card
    for changes, message in (
        ({"answer": answer + 0.01}, r"is up to 0\.0\d+ from what .*a\.npz expects"),
        ({"answer": answer[:1]}, r"answers \(2, 2, 64, 64\) where .* expects \(1, 2, 64, 64\)"),
        ({"image0": images[1].numpy()}, "is up to"),
    ):
        np.savez(npz, **{**given, **changes})
        with pytest.raises(BundleError, match=message):
            import_model(file, output, reading, expected=npz)
    np.savez(npz, before=answer)
    with pytest.raises(BundleError, match=r"has before, but .* needs image0, image1, answer of it"):
        import_model(file, output, reading, expected=npz)
    whole = npz.read_bytes()
    for damaged in (b"no arrays", b"", whole[: len(whole) // 2]):
        npz.write_bytes(damaged)
        with pytest.raises(BundleError, match=r"is no \.npz file"):
            import_model(file, output, reading, expected=npz)
    np.save(alone := tmp_path / "a.npy", answer)
    with pytest.raises(BundleError, match="one array without a name"):
        import_model(file, output, reading, expected=alone)


def test_a_network_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    """Its normalisation takes what else is in the batch for what images are like."""

    class Normalised(torch.nn.Module):
        def forward(self, both: torch.Tensor) -> torch.Tensor:
            x = (both[:, :3] - both[:, 3:]).abs()
            return ((x - x.mean(dim=(0, 2, 3), keepdim=True)) / (x.std(dim=(0, 2, 3), keepdim=True) + 1e-3))[:, :1]

    file = export(tmp_path / "g.onnx", Normalised(), (1, 6, SIDE, SIDE))
    bands = random_bundle(PeerArchitecture(method="fc-ef", width=2)).bands
    reading = Reading(inputs="stacked", output="logits", bands=bands, window=SIDE)
    with pytest.raises(BundleError, match="depends on the other windows of the batch"):
        import_model(file, tmp_path / "b.safetensors", reading)


def test_a_program_of_torch_becomes_a_graph_where_it_is_trusted(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch exports programs by onnxscript")
    own = random_bundle(PeerArchitecture(method="fc-ef", width=2), window=SIDE)
    module = Stacked(build_model(own)).eval()
    program = torch.export.export(module, (torch.zeros(1, 6, SIDE, SIDE),))
    file, output = tmp_path / "g.pt2", tmp_path / "b.safetensors"
    torch.export.save(program, file)
    reading = Reading(inputs="stacked", output="probability", bands=own.bands)
    with pytest.raises(BundleError, match=r"can run code that somebody has put into the file.*--trust"):
        import_model(file, output, replace(reading, window=SIDE))
    assert not output.exists()
    imported = import_model(file, output, reading, trust=True).bundle
    assert np.abs(map_of(imported) - map_of(own)).max() < 1e-4
    assert imported.window == SIDE  # such a program has the size that it was exported with
    assert imported.provenance[TRUSTED] is True and "--trust" in load_bundle(output).card
    assert any("--trust" in note for note in bundle_model(str(output)).notes)


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch exports programs by onnxscript")
    (tmp_path / "g.pt2").write_bytes(b"nothing of torch")
    bands = random_bundle(PeerArchitecture(method="fc-ef", width=2)).bands
    reading = Reading(inputs="stacked", output="logits", bands=bands, window=SIDE)
    with pytest.raises(BundleError, match=r"is no program that torch .* can read"):
        import_model(tmp_path / "g.pt2", tmp_path / "b.safetensors", reading, trust=True)

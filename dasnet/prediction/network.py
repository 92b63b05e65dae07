"""A trained network made ready to predict: normalisation folded away, narrow arithmetic, channels last, compiled; or in
integers, as its bundle has it quantised."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_structure, tree_unflatten

from dasnet.errors import PredictorError
from dasnet.networks.change_network import ChangeNetwork
from dasnet.networks.imported.network import ImportedNetwork
from dasnet.prediction.bundle import Bundle, build_model
from dasnet.prediction.folding import fold_normalisation
from dasnet.prediction.quantised.description import NOT_QUANTISED
from dasnet.prediction.quantised.graph import QuantisedGraph
from dasnet.prediction.quantised.session import Session

Precision = Literal["auto", "float32", "bfloat16", "int8"]

_STRUCTURE_SIDE = 64
"""Side of the image by which it is seen how the tensors of a date are put together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InferenceNetwork:
    """What a network keeps of a date, how it compares two, and what both are computed with.

    Attributes:
        embed: (B, bands, H, W) on `device`, any float type, to what `compare` takes.
        compare: two dates as `embed` gave them, to their distance (B, h, w) float32 in [0, 2].
        device: where.
        dtype: arithmetic of the convolutions; normalisation of the embeddings and channel attention are float32.
        compiled: whether torch.compile made it.
        runtime: what computes in torch's place, with its version; None = torch.
        integers: whether a date is embedded in int8; `dtype` is then that of what is not quantised.
    """

    embed: Callable[[Tensor], Any]
    compare: Callable[[Any, Any], Tensor]
    device: torch.device
    dtype: torch.dtype
    compiled: bool = False
    runtime: str | None = None
    integers: bool = False

    def compiled_for(self, shape: tuple[int, int, int, int]) -> InferenceNetwork:
        """The same through torch.compile, tried out on images of `shape` (B, bands, H, W).

        Where that fails (no C++ compiler, say) there is a warning, and the network stays as it is.
        """
        if self.runtime is not None:
            warnings.warn(f"torch.compile has no part in what {self.runtime} computes", stacklevel=2)
            return self
        # Weights are constants here; on a CPU that lets the compiler lay them out once instead of in every call.
        options: Any = {"freezing": True} if self.device.type == "cpu" else None
        try:
            embed, compare = torch.compile(self.embed, options=options), torch.compile(self.compare, options=options)
            with torch.inference_mode():
                date = embed(torch.zeros(shape, device=self.device))
                compare(date, date)
        except Exception as error:  # whatever a missing or broken toolchain raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"torch.compile does not work here, the network runs uncompiled: {reason}", stacklevel=2)
            return self
        return replace(self, embed=embed, compare=compare, compiled=True)

    def largest_batch(self, most: int, *, bands: int, side: int, dates: int, pairs: int, spare: int) -> int:
        """How many windows fit at a time: `most`, halved until all dates of so many fit into memory.

        Found before anything is computed, since bits on a GPU depend on the batch.

        Args:
            spare: bytes that must be left beside them, for the block that the windows are cut from.

        Raises:
            torch.OutOfMemoryError: not even one does.
        """
        batch = most
        while True:
            try:
                self._try((batch, dates, bands, side, side), pairs=pairs, spare=spare)
                return batch
            except torch.OutOfMemoryError:
                if batch == 1:
                    raise
            batch //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def _try(self, shape: tuple[int, int, int, int, int], *, pairs: int, spare: int) -> None:
        """Windows (B, T, bands, s, s); in a frame of its own, so that nothing of what did not fit is held while less is
        tried."""
        inputs = torch.zeros(shape, device=self.device)
        # beside them: the block, and the windows as they are stored, as integers and as known
        held = [torch.empty(spare + 7 * inputs.numel(), dtype=torch.uint8, device=self.device)]
        dates = [self.embed(date) for date in inputs.unbind(1)]
        self.compare(dates[0], dates[-1])
        # distances and probabilities of every pair, and what is between
        held += [torch.empty((shape[0], pairs, *shape[3:]), device=self.device) for _ in range(3)]

    @property
    def precision(self) -> str:
        """What the network computes in, by a request's name for it."""
        return "int8" if self.integers else str(self.dtype).removeprefix("torch.")

    @property
    def arithmetic(self) -> str:
        """What the bits depend on beside the weights: the GPU's model or the CPU's vector instructions."""
        if self.device.type == "cuda":
            device = torch.cuda.get_device_name(self.device)
        else:
            device = f"CPU {torch.backends.cpu.get_cpu_capability()}"
        return device if self.runtime is None else f"{device}, {self.runtime}"


def prepare_bundle(
    bundle: Bundle, *, side: int, device: str = "auto", precision: Precision = "auto"
) -> InferenceNetwork:
    """Make a bundle's network ready, as :func:`prepare` does, or its quantised graph.

    Args:
        side: of the windows, pixels.
        precision: "int8" is the quantised graph, on a CPU; so is "auto", where the bundle has one that takes such
            windows and was measured to be the fastest when it was made, OpenVINO is installed and no GPU is used.

    Raises:
        PredictorError: no such device or precision; int8 on a GPU, or of a bundle without a quantised graph.
        BundleError: OpenVINO is not installed or does not take the graph, or the graph does not take such windows.
    """
    graph = bundle.quantised_graph
    if precision == "int8":
        if graph is None:
            raise PredictorError(NOT_QUANTISED)
        if device != "auto" and _device(device).type != "cpu":
            raise PredictorError(f"int8 is computed on CPUs, not on {device}: --precision auto or bfloat16")
    elif (
        graph is None
        or precision != "auto"
        or _device(device).type != "cpu"
        or not graph.description.is_automatic(side)
    ):
        return prepare(build_model(bundle), in_bands=len(bundle.bands), device=device, precision=precision)
    return _quantised(build_model(bundle), graph, in_bands=len(bundle.bands), side=side)


def _quantised(model: ChangeNetwork, graph: QuantisedGraph, *, in_bands: int, side: int) -> InferenceNetwork:
    fold_normalisation(model, in_bands=in_bands)  # of what compares two dates
    session = Session(graph, bands=in_bands, side=side)
    with torch.inference_mode():
        structure = tree_structure(model.features(torch.zeros(1, in_bands, _STRUCTURE_SIDE, _STRUCTURE_SIDE)))

    def embed(images: Tensor) -> Any:
        # one by one: a graph of several at a time could answer in other bits
        of_each = [session.run(image.float().numpy()) for image in images.split(1)]
        return tree_unflatten(
            [torch.from_numpy(np.concatenate(part)) for part in zip(*of_each, strict=True)], structure
        )

    return InferenceNetwork(
        embed=embed,
        compare=model.distance,
        device=torch.device("cpu"),
        dtype=torch.float32,
        runtime=session.arithmetic,
        integers=True,
    )


def prepare(
    model: ChangeNetwork, *, in_bands: int, device: str = "auto", precision: Precision = "auto"
) -> InferenceNetwork:
    """Make `model` ready; it is changed and must not be used for anything else afterwards.

    Args:
        model: in eval mode, on the CPU.
        in_bands: of an image.
        device: "auto" takes a GPU where there is one; or what torch.device takes.
        precision: "auto" is bfloat16 on a GPU that has it, and on a CPU that has instructions for it (twice as fast
            there for the paper's backbones, a sixth for the light one); elsewhere float32.

    Raises:
        PredictorError: no such device or precision.
        BundleError: with its normalisation folded away the network answers otherwise.
    """
    if isinstance(model, ImportedNetwork):
        return _prepared_by_its_runtime(model, device=device, precision=precision)
    where = _device(device)
    dtype = torch.float32 if model.needs_float32 else _dtype(precision, where)
    fold_normalisation(model, in_bands=in_bands)
    model = model.to(where, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(images: Tensor) -> Any:
        return model.features(images.to(dtype=dtype, memory_format=torch.channels_last))

    return InferenceNetwork(embed=embed, compare=model.distance, device=where, dtype=dtype)


def _prepared_by_its_runtime(model: ImportedNetwork, *, device: str, precision: Precision) -> InferenceNetwork:
    """An imported graph keeps its own arithmetic, and its runtime makes it fast."""
    if why := model.architecture.refusal_of_precision(precision):
        raise PredictorError(why)
    where = _device("cpu" if device == "auto" and not model.runs_on_gpu else device)
    model.start(where)
    return InferenceNetwork(
        embed=model.features,
        compare=model.distance,
        device=where,
        dtype=_dtype("float32" if precision == "auto" else precision, where),
        runtime=model.arithmetic,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise PredictorError(f"no device is called {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise PredictorError(f"device {name!r} is neither a CPU nor a CUDA GPU")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PredictorError(
            f"device {name!r} was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA GPUs"
        )
    return device


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision not in get_args(Precision):
        raise PredictorError(f"precision {precision!r} is none of {', '.join(get_args(Precision))}")
    if precision == "int8":
        raise PredictorError(NOT_QUANTISED)
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32

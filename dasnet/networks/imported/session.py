"""ONNX Runtime runs a graph: on the thread that calls on a CPU, or on a GPU, and the same bits for the same input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dasnet.errors import BundleError, PredictorError
from dasnet.networks.imported.graph import require_runtime, require_whole, runtime_lacks

_QUIET = 4
"""Severity from which ONNX Runtime writes to the terminal: fatal; its errors are raised, and said in our words."""

_CUDA = "CUDAExecutionProvider"


class Session:
    """A graph that can be run, by several threads at a time on a CPU."""

    def __init__(self, content: bytes, *, device: torch.device, name: str = "the graph") -> None:
        """Load a graph.

        Args:
            name: how messages call it.

        Raises:
            BundleError: ONNX Runtime is not installed or does not take the graph: what it says is in the message.
            PredictorError: a GPU is asked for, and this ONNX Runtime has none.
        """
        require_runtime(name)
        require_whole(content, name=name)
        import onnxruntime as ort

        options = ort.SessionOptions()
        # the lanes are the parallelism, and sums of one thread have one order
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = _QUIET
        self.arithmetic = f"ONNX Runtime {ort.__version__}"
        if device.type == "cuda" and not on_gpu():
            raise PredictorError(
                f"{name} was to run on {device}, but ONNX Runtime {ort.__version__} here has "
                f"{', '.join(ort.get_available_providers())}: install onnxruntime-gpu in its place, or use a CPU"
            )
        try:
            self._session = ort.InferenceSession(content, options, providers=_providers(device))
        except Exception as error:  # its errors share no class of their own
            raise BundleError(f"{name}: ONNX Runtime {ort.__version__} does not take it: {_reason(error)}") from error
        if device.type == "cuda" and self._session.get_providers()[0] != _CUDA:
            raise PredictorError(f"{name} was to run on {device}, and ONNX Runtime could not start there")

    def run(self, output: str, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """One output for inputs by their names; raises BundleError with what ONNX Runtime says."""
        try:
            result: NDArray[Any] = self._session.run([output], dict(values))[0]
        except Exception as error:  # its errors share no class of their own
            shapes = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in values.items())
            raise BundleError(f"the graph does not run for {shapes}: {_reason(error)}") from error
        return np.asarray(result)


def on_gpu() -> bool:
    """Whether the ONNX Runtime that is installed can use a GPU."""
    if "onnxruntime" in runtime_lacks():
        return False
    import onnxruntime as ort

    return _CUDA in ort.get_available_providers()


def _providers(device: torch.device) -> list[Any]:
    if device.type != "cuda":
        return ["CPUExecutionProvider"]
    # neither a search for the fastest convolution nor TF32: the same bits each time, and float32 is float32
    settings = {"device_id": device.index or 0, "cudnn_conv_algo_search": "DEFAULT", "use_tf32": 0}
    return [(_CUDA, settings), "CPUExecutionProvider"]


def _reason(error: Exception) -> str:
    """The first lines of what went wrong, without the name of the class and the source file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = " ".join(lines[:2])
    return text if len(text) <= 500 else f"{text[:500]} …"

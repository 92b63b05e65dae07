"""OpenVINO computes a quantised graph on a CPU: one thread a lane, and the same bits for the same window."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dasnet.errors import BundleError
from dasnet.prediction.quantised.description import require_runtime
from dasnet.prediction.quantised.graph import QuantisedGraph, require_own_operators

_SETTINGS = {
    # a lane is one thread, so that sums have one order
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    # pinned threads of several workers would all sit on the first core
    "ENABLE_CPU_PINNING": False,
    # what is not quantised stays float32, also where a CPU has bfloat16
    "INFERENCE_PRECISION_HINT": "f32",
}


def openvino() -> Any:
    """The library, imported here alone; raises BundleError where it is not installed.

    Its telemetry reports each import to its makers. A run tells nobody anything, so that package is kept out.
    """
    require_runtime("a quantised graph")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def version_of_openvino() -> str:
    """Without the build."""
    return str(openvino().__version__).partition("-")[0]


class Session:
    """A quantised graph for windows of one size, on this machine's CPU; several threads at a time may compute."""

    def __init__(self, graph: QuantisedGraph, *, bands: int, side: int) -> None:
        """Load a graph.

        Args:
            bands: of an image.
            side: of a window, pixels.

        Raises:
            BundleError: OpenVINO is not installed or does not take the graph; it cannot look at such windows.
        """
        if why := graph.description.refusal(side):
            raise BundleError(why)
        require_own_operators(graph.topology)
        library = openvino()
        self._shape = (1, bands, side, side)
        self._idle: deque[Any] = deque()
        try:
            self._core = library.Core()
            self._model = self._core.read_model(graph.topology, graph.constants)
            self._model.reshape(list(self._shape))
            first = self._compiled()
        except RuntimeError as error:
            raise BundleError(f"OpenVINO {library.__version__} does not take the quantised graph: {error}") from error
        answers = len(self._model.outputs)
        if answers != graph.description.answers:
            raise BundleError(f"the quantised graph gives {answers} tensors, not {graph.description.answers}")
        self.arithmetic = f"OpenVINO {version_of_openvino()} ({_instructions(first)})"
        self._idle.append(first.create_infer_request())

    def run(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """What the graph makes of one image (1, C, s, s): its tensors (1, …), float32."""
        if image.shape != self._shape:
            raise BundleError(f"the quantised graph was loaded for images of {self._shape}, not of {image.shape}")
        try:
            request = self._idle.pop()
        except IndexError:  # as many lanes as never before: one more thread of its own
            request = self._compiled().create_infer_request()
        try:
            request.infer({0: np.ascontiguousarray(image)})
            return [request.get_output_tensor(number).data.copy() for number in range(len(self._model.outputs))]
        finally:
            self._idle.append(request)

    def _compiled(self) -> Any:
        return self._core.compile_model(self._model, "CPU", _SETTINGS)


def _instructions(compiled: Any) -> str:
    """The vector instructions of the kernels that OpenVINO chose, and those for integers that this CPU has."""
    kernels = set()
    for node in compiled.get_runtime_model().get_ops():
        notes = node.get_rt_info()
        if "primitiveType" in notes:
            kernels.update(str(notes["primitiveType"].astype(str)).split("_"))
    names: list[str] = [name for name in ("sse42", "avx", "avx2", "avx512", "amx", "asimd", "sve") if name in kernels]
    capabilities = torch.cpu.get_capabilities()
    names += [name for name in ("avx_vnni", "avx_vnni_int8", "avx512_vnni", "amx_int8") if capabilities.get(name)]
    return ", ".join(names) or "plain"

"""Copies between the host and the device that computes, on streams of their own where the device is a GPU.

A GPU copies while it computes, if the host's side is pinned. On a CPU nothing is copied that need not be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Transfer:
    """The two ways between a host and one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: tuple[Any, Any] | None = None
        if device.type == "cuda":
            self._streams = (torch.cuda.Stream(device), torch.cuda.Stream(device))

    def upload(self) -> Upload:
        """A new, empty load for the device."""
        return Upload(device=self._device, stream=None if self._streams is None else self._streams[0])

    def download(self, *tensors: Tensor) -> Download:
        """Start to copy what the current stream computes; it goes on without waiting for the copy."""
        if self._streams is None:
            return Download(tensors, arrival=None)
        computing, stream = torch.cuda.current_stream(self._device), self._streams[1]
        stream.wait_stream(computing)
        with torch.cuda.stream(stream):
            copies = []
            for tensor in tensors:
                copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                copies.append(copy.copy_(tensor, non_blocking=True))
                tensor.record_stream(stream)
            arrival = torch.cuda.Event(blocking=True)
            arrival.record(stream)
        return Download(copies, arrival=arrival)


class Upload:
    """Arrays on their way to the device. What sends them need not be the thread that computes."""

    def __init__(self, *, device: torch.device, stream: Any) -> None:
        self._device, self._stream = device, stream
        self._tensors: list[Tensor] = []

    def put(self, array: NDArray[Any]) -> Tensor:
        """`array` as a tensor of the device, to be used after :meth:`arrive`; nothing may be written to either."""
        if self._stream is None:
            # torch does not take read-only arrays
            return torch.from_numpy(array if array.flags.writeable else array.copy())
        host = torch.empty(array.shape, dtype=torch.from_numpy(np.empty(0, dtype=array.dtype)).dtype, pin_memory=True)
        host.numpy()[...] = array
        with torch.cuda.stream(self._stream):
            tensor = host.to(self._device, non_blocking=True)
        self._tensors.append(tensor)
        return tensor

    def arrive(self) -> None:
        """Let the current stream wait for what was sent; the host does not."""
        if self._stream is None:
            return
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._stream)
        for tensor in self._tensors:
            tensor.record_stream(computing)  # its memory is not given away before it was used


class Download:
    """Tensors on their way to the host."""

    def __init__(self, tensors: Any, *, arrival: Any) -> None:
        self._tensors, self._arrival = tensors, arrival

    def arrays(self) -> list[NDArray[Any]]:
        """Wait for them: the one place where the host waits for a GPU."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return [tensor.numpy() for tensor in self._tensors]

"""A graph of ONNX as bytes: read and looked at before any runtime sees it.

What it may hold: operators that ONNX and ONNX Runtime define themselves, functions made of these, and numbers. What it
may not: operators of a library of somebody's own, which would be code, and numbers in files elsewhere.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dasnet.errors import BundleError

if TYPE_CHECKING:
    import onnx

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Whose operators are taken: those of ONNX, and those that every build of ONNX Runtime brings itself."""

LARGEST = (1 << 31) - 1
"""Bytes of a graph: no message of protobuf is larger."""

INSTALL = "install the extra: pip install 'dasnet-region[onnx]'"

_LISTED = 8


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or an output of a graph.

    Attributes:
        type: of its values, as numpy calls it.
        shape: an int where a size is fixed, else its name or None; None = not even the number of axes is said.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        axes = "of unknown rank" if self.shape is None else f"({', '.join(str(size or '?') for size in self.shape)})"
        return f"{self.name!r} {axes} {self.type}"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A graph that holds everything it needs.

    Attributes:
        content: the model as ONNX writes it, with all of its numbers.
        inputs, outputs: in the graph's order.
        opset: version of ONNX's own operators.
        sha256: of each file that it was read from, by its name.
    """

    content: bytes
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int
    sha256: Mapping[str, str]


def runtime_lacks() -> list[str]:
    """Packages that running a graph needs and that are not installed here; nothing is imported."""
    return [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]


def require_runtime(name: str) -> None:
    """Refuse what `name` stands for where no graph can be run; raises BundleError."""
    if lacking := runtime_lacks():
        raise BundleError(f"{name} is run by ONNX Runtime; not installed here: {', '.join(lacking)}; {INSTALL}")


def read_graph(path: Path) -> Graph:
    """Read a file of ONNX, with the files of numbers beside it that it names.

    Raises:
        BundleError: no such file, no ONNX, numbers elsewhere than beside it, or operators of a library.
    """
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise BundleError(f"{path} has {size:,} bytes, a graph of ONNX in one piece at most {LARGEST:,}")
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    model = parse_graph(content, name=str(path))
    digests = {path.name: hashlib.sha256(content).hexdigest()}
    if beside := sorted(set(_files_of(model))):
        import onnx

        for location in beside:
            file = _beside(path, location)
            with file.open("rb") as opened:
                digests[location] = hashlib.file_digest(opened, "sha256").hexdigest()
        size = len(content) + sum((path.parent / location).stat().st_size for location in beside)
        if size > LARGEST:
            raise BundleError(
                f"{path} and the numbers beside it have {size:,} bytes, a graph in one piece at most {LARGEST:,}: "
                "export it in float16"
            )
        try:
            onnx.load_external_data_for_model(model, str(path.parent))  # every location was looked at
        except Exception as error:  # whatever a file that is too short raises
            raise BundleError(f"{path}: the numbers in {', '.join(beside)} cannot be read: {error}") from error
        content = model.SerializeToString()
    return graph_of(content, name=str(path), sha256=digests)


def graph_of(content: bytes, *, name: str, sha256: Mapping[str, str]) -> Graph:
    """A graph in one piece; raises BundleError as :func:`read_graph` does."""
    model = parse_graph(content, name=name)
    return Graph(
        content=content,
        inputs=_ports(model, model.graph.input),
        outputs=_ports(model, model.graph.output),
        opset=max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0),
        sha256=sha256,
    )


def parse_graph(content: bytes, *, name: str) -> onnx.ModelProto:
    """A model of ONNX that names no operator of a library; raises BundleError."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise BundleError(f"{name} is a graph of ONNX, and onnx is not installed here; {INSTALL}") from error
    try:
        model: onnx.ModelProto = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise BundleError(f"{name} is no file of ONNX: {error}") from error
    if not model.graph.node or not model.opset_import:
        raise BundleError(f"{name} is no file of ONNX: {len(content):,} bytes without a graph")
    own = {(function.domain, function.name) for function in model.functions}
    strange = {
        f"{node.domain}::{node.op_type}"
        for node in _nodes(model)
        if node.domain not in DOMAINS and (node.domain, node.op_type) not in own
    }
    if strange:
        listed = ", ".join(sorted(strange)[:_LISTED])
        raise BundleError(
            f"{name} needs operators of a library of its own ({listed}), but only those of ONNX and ONNX Runtime are "
            "run here, and no library is ever loaded: export it with ONNX's operators"
        )
    return model


def require_whole(content: bytes, *, name: str) -> None:
    """Refuse a graph that cannot be run by itself, as one in a bundle must be; raises BundleError."""
    if beside := sorted(set(_files_of(parse_graph(content, name=name)))):
        raise BundleError(f"{name}: its graph has numbers in other files ({', '.join(beside[:_LISTED])}), none may be")


def _beside(path: Path, location: str) -> Path:
    """The file of numbers that a graph names, which must lie in its own folder."""
    relative, folder = PurePosixPath(location), path.parent.resolve()
    file = path.parent / location
    if relative.is_absolute() or "\\" in location or len(relative.parts) != 1 or file.resolve().parent != folder:
        raise BundleError(
            f"{path} has numbers in {location!r}, outside of its folder {folder}: only files beside it are read"
        )
    if not file.is_file():
        raise BundleError(f"{path} has numbers in {location!r}, and there is no such file beside it: bring both")
    return file


def _nodes(model: onnx.ModelProto) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from graph.node


def _graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """The graph, those in its nodes (branches, loops), and functions, which have nodes too."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting += attribute.graphs


def _tensors(model: onnx.ModelProto) -> Iterator[Any]:
    for graph in _graphs(model):
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)


def _files_of(model: onnx.ModelProto) -> Iterator[str]:
    """Where numbers lie that are not in the model itself."""
    for tensor in _tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            yield {entry.key: entry.value for entry in tensor.external_data}.get("location", "")


def _ports(model: onnx.ModelProto, values: Any) -> tuple[Port, ...]:
    constants = {tensor.name for tensor in model.graph.initializer}  # older files list weights as inputs too
    ports = []
    for value in values:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        ports.append(
            Port(
                name=value.name,
                type=_type_of(tensor.elem_type) if value.type.HasField("tensor_type") else "no tensor",
                shape=tuple(
                    axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None
                    for axis in tensor.shape.dim
                )
                if tensor.HasField("shape")
                else None,
            )
        )
    return tuple(ports)


def _type_of(number: int) -> str:
    """The type that ONNX has a number for, as numpy calls it."""
    from onnx import helper

    try:
        return str(helper.tensor_dtype_to_np_dtype(number)) if number else "no tensor"
    except KeyError:
        return f"of a type that this version of onnx does not know ({number})"

"""A program of torch.export (.pt2) becomes a graph of ONNX, once, and only where its file is trusted.

Such a file holds Python objects beside its operators, and reading them can run code. So it is read when it is imported,
by the word of the person who says ``--trust``, and never again: what stands in the bundle is the graph.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dasnet.errors import BundleError

SUFFIX = ".pt2"


def as_onnx(path: Path, *, trust: bool) -> tuple[bytes, list[Tensor], list[Tensor]]:
    """The graph of a program, images of the size that it was exported with, and what the program answers to them.

    The images are noise: those that a program was exported with are often zeros, and what zeros show is little.

    Raises:
        BundleError: not trusted, unreadable, or made of operators that ONNX lacks.
    """
    if not trust:
        raise BundleError(
            f"{path} is a program of torch.export: reading it can run code that somebody has put into the file. Only "
            "if you trust whoever made it: --trust; better bring a file of ONNX, which holds no code"
        )
    if not path.is_file():
        raise BundleError(f"{path}: no such file")
    try:
        import onnxscript  # noqa: F401  what torch.onnx exports by
    except ImportError as error:
        raise BundleError(f"{path} becomes a graph of ONNX by onnxscript: pip install onnxscript") from error
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)  # it would write a traceback of what is said below
    try:
        program = torch.export.load(path)
    except Exception as error:  # whatever an archive of another kind or version raises
        raise BundleError(f"{path} is no program that torch {torch.__version__} can read: {_reason(error)}") from error
    positional, keywords = program.example_inputs or ((), {})
    if keywords or not positional or not all(isinstance(each, Tensor) for each in positional):
        raise BundleError(f"{path} was exported with other inputs than images alone, or without examples of them")
    random = torch.Generator().manual_seed(0)
    examples = [torch.randn(each.shape, generator=random).to(each.dtype) for each in positional]
    try:
        with warnings.catch_warnings(), torch.inference_mode(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            answers = _tensors(program.module()(*examples))
            exported: Any = torch.onnx.export(program, dynamo=True, verbose=False)
            content: bytes = exported.model_proto.SerializeToString()
    except Exception as error:  # operators without a counterpart, sizes that do not fit, whatever it ends with
        raise BundleError(f"{path} cannot be written as a graph of ONNX: {_reason(error)}") from error
    return content, examples, answers


def _tensors(answer: Any) -> list[Tensor]:
    return [each for each in (answer if isinstance(answer, Sequence) else [answer]) if isinstance(each, Tensor)]


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""Answers that a network's own code gave, held against those of its graph: exporters make mistakes too."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from dasnet.errors import BundleError
from dasnet.networks.imported.description import ImportedArchitecture
from dasnet.networks.imported.session import Session

_SAME = 1e-4
"""How far an answer may be from the expected one, of the largest value expected, or of 1 where that is less."""


def require_same(
    given: dict[str, np.ndarray], graph: bytes, architecture: ImportedArchitecture, *, source: str, name: str
) -> float:
    """How far the graph's answers are from the expected ones at most.

    Args:
        given: inputs and output by the graph's names for them.
        source: what messages call it.

    Raises:
        BundleError: another name than the graph's, a shape that it does not take or give, or another answer.
    """
    names = (*architecture.input_names, architecture.output_name)
    if missing := [each for each in names if each not in given]:
        raise BundleError(f"{source} has {', '.join(given) or 'nothing'}, but {name} needs {', '.join(missing)} of it")
    if odd := [each for each in names if given[each].dtype.kind not in "fiu" or not given[each].size]:
        shown = ", ".join(f"{each} {given[each].shape} {given[each].dtype}" for each in odd)
        raise BundleError(f"{source} has {shown} where {name} needs real numbers, one or more")
    if broken := [each for each in names if not np.isfinite(given[each].astype(np.float64)).all()]:
        raise BundleError(
            f"{source} has NaN or infinite values in {', '.join(broken)}: nothing can be held against them"
        )
    inputs = {each: given[each].astype(architecture.input_type) for each in architecture.input_names}
    expected = given[architecture.output_name].astype(np.float64)
    session = Session(graph, device=torch.device("cpu"), name=name)
    found = session.run(architecture.output_name, inputs).astype(np.float64)
    if found.shape != expected.shape:
        raise BundleError(f"{name} answers {found.shape} where {source} expects {expected.shape}")
    apart = float(np.abs(found - expected).max())
    if not apart <= _SAME * max(float(np.abs(expected).max()), 1.0):
        raise BundleError(
            f"{name}: output {architecture.output_name!r} is up to {apart:.3g} from what {source} expects: the export "
            "went wrong, or these answers are of other weights; try another exporter or another version of it"
        )
    return apart


def read_expected(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their names; raises BundleError for a file that is none."""
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise BundleError(f"{path} holds one array without a name: np.savez writes several by their names")
        with file:
            return {name: np.asarray(file[name]) for name in file.files}
    except BundleError:
        raise
    except (OSError, ValueError, AttributeError, TypeError, EOFError, BadZipFile) as error:
        raise BundleError(f"{path} is no .npz file of arrays: {error}") from error

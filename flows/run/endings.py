"""How a flow run ends in the Prefect UI, beside Completed, Failed, Crashed and Cancelled.

Two endings need a person and not a second attempt, so they have names of their own (both of Prefect's type FAILED): the
automations and a person's filters tell them from what failed by bad luck.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect.states import Failed

from flows.run.errors import REFUSALS, FailedBlocksError, FailedCellsError, FailedMethodsError
from flows.run.heartbeats import watched

REFUSED = "Refused"
"""Nothing was computed: the request cannot work, and the message says why."""

INCOMPLETE = "Incomplete"
"""Blocks or cells are in quarantine, or methods failed; everything else is finished and kept."""

P = ParamSpec("P")
T = TypeVar("T")


def named_endings(body: Callable[P, T]) -> Callable[P, T]:
    """Under ``@flow``: end Refused or Incomplete where the body's error says so; the caller gets the same error.

    Its sub-flows are watched as the run itself is.
    """

    @functools.wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with watched():
                return body(*args, **kwargs)
        except (FailedBlocksError, FailedCellsError, FailedMethodsError) as error:
            return Failed(name=INCOMPLETE, message=str(error), data=error)  # type: ignore[return-value]  # Prefect takes it
        except REFUSALS as error:
            return Failed(name=REFUSED, message=str(error), data=error)  # type: ignore[return-value]

    # Prefect reads the parameters of the form from here; the names in `body`'s annotations are of its own module
    run.__signature__ = inspect.signature(body, eval_str=True)  # type: ignore[attr-defined]
    run.__annotations__ = inspect.get_annotations(body, eval_str=True)
    return run

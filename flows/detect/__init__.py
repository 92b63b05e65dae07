"""One pair of mosaics: plan, ingest, infer, products. Called, this package is :func:`flows.interface.detect`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Detect(ModuleType):
    """``from flows import detect`` gives this package wherever a module of it was imported before."""

    def __call__(self, before: Any, after: Any, *, output: Any, observer: Any = None, **settings: Any) -> Any:
        from flows.interface import detect

        return detect(before, after, output=output, observer=observer, **settings)


sys.modules[__name__].__class__ = _Detect

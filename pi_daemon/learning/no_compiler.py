"""Keeps torch's compiler out of a process that compiles nothing.

Torch's Python functions for shapes are marked as none of the compiler's business. At its first call each
imports `torch._dynamo` to be told so: more than a second of a desktop's processor, and 100 MB.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, TypeVar

# While torch itself is imported it must find no stand-in for a part of it.
import torch  # noqa: F401

F = TypeVar("F", bound=Callable[..., Any])

_NAME: Final = "torch._dynamo"


class _NoCompiler(ModuleType):
    """Has what the marks ask for. Whoever asks for anything else gets the compiler."""

    def disable(self, function: F, recursive: bool = True, *, wrapping: bool = True) -> F:
        return function

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
        return getattr(importlib.import_module(_NAME), name)


def leave_out_the_compiler() -> None:
    """From now on, unless it has been imported already."""
    if _NAME not in sys.modules:
        sys.modules[_NAME] = _NoCompiler(_NAME)

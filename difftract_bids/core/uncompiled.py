"""Functions that `torch.compile` leaves alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """Let `torch.compile` break its graph at a function, whose kernels are compiled already.

    As :func:`torch.compiler.disable`, but for loading the compiler: that takes as long as loading
    all the rest of PyTorch, and whoever compiles nothing has no use for it.
    """
    held: Callable[P, T] | None = None

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal held
        if "torch._dynamo" not in sys.modules:  # nothing has been compiled
            return function(*args, **kwargs)
        if held is None:
            held = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return held(*args, **kwargs)

    return call

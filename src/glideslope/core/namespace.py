"""One formula for floats, NumPy arrays, torch and TensorFlow tensors and traced JAX arrays.

The namespace comes from the argument.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

Real: TypeAlias = Any
"""A float, a NumPy array, a torch or TensorFlow tensor or a (traced) JAX array; what goes in decides what comes out."""


def _namespace(x: Real) -> Any:
    """The module whose functions take `x`: its own array namespace, or the framework that somebody has imported."""
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()
    torch: ModuleType | None = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return torch
    tensorflow: ModuleType | None = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(x, tensorflow.Tensor):
        return tensorflow.experimental.numpy
    raise TypeError(
        f"progress is a {type(x).__name__}, but must be a float, a NumPy array, a torch tensor or a JAX or TensorFlow "
        "array."
    )


def cos(x: Real) -> Real:
    return math.cos(x) if isinstance(x, (float, int)) else _namespace(x).cos(x)


def exp(x: Real) -> Real:
    return math.exp(x) if isinstance(x, (float, int)) else _namespace(x).exp(x)


def sqrt(x: Real) -> Real:
    return math.sqrt(x) if isinstance(x, (float, int)) else _namespace(x).sqrt(x)


def floor(x: Real) -> Real:
    return float(math.floor(x)) if isinstance(x, (float, int)) else _namespace(x).floor(x)


def where(condition: Real, then: Real, otherwise: Real) -> Real:
    """`then` where `condition` holds, else `otherwise`; at least one of the two has the dtype of the progress."""
    if isinstance(condition, (bool, np.bool_)):
        return then if condition else otherwise
    return _namespace(condition).where(condition, then, otherwise)


def clip(x: Real, low: float, high: float) -> Real:
    if isinstance(x, (float, int)):
        return low if x < low else high if x > high else x
    return _namespace(x).clip(x, low, high)

"""Formulas whose inner values half precision does not hold."""

from __future__ import annotations

from collections.abc import Callable

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Reason


def single_or_half(x: Value) -> Reason:
    """Whether `x` is float32 or float16."""
    return x.dtype in (dtypes.FLOAT, dtypes.FLOAT16) or "neither float32 nor float16"


def in_float32(op: Builder, x: Value, formula: Callable[[Value], Value]) -> Value:
    """`formula(x)`, computed in float32 and rounded once where `x` is float16."""
    if x.dtype != dtypes.FLOAT16:
        return formula(x)
    return op.Cast(formula(op.Cast(x, to=dtypes.FLOAT)), to=x.dtype)

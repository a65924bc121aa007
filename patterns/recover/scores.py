"""What is known of attention scores from how they are made."""

from __future__ import annotations

import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.rewrite import constant_of, number_of, see_through

_SMALL = 1e4
_NODES = 32
_MOVES = {"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Tile", "Slice", "Gather", "GatherElements"}


def is_score(value: Value) -> bool:
    """Whether `value` is made of products of matrices and small constants, by scaling, capping, adding and moving."""
    pending = [value]
    for _ in range(_NODES):
        if not pending:
            return True
        parts = _parts(pending.pop())
        if parts is None:
            return False
        pending += parts
    return False


def _parts(value: Value) -> list[Value] | None:
    """What must be scores for `value` to be one; None where it is not."""
    node, known, inner = value.node, constant_of(value), see_through(value)
    operands = [v for v in node.inputs if v is not None]
    if known is not None:
        return [] if known.dtype in dtypes.FLOATS and bool((np.abs(known.numpy()) <= _SMALL).all()) else None
    if inner is not None:
        return [inner]
    if node.domain:
        return None
    if node.op in ("Mul", "Div"):
        scaled = [v for v in operands if number_of(v) is None]
        return scaled if len(scaled) == 1 else None
    if node.op in ("Add", "Sub"):
        return operands
    if node.op in _MOVES:
        return operands[:1]
    return [] if node.op in ("MatMul", "Tanh") else None

"""What is known of attention scores from how they are made."""

from __future__ import annotations

import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.ir.fills import Fill, fills
from graphopt.rewrite import constant_of, number_of, see_through

_SMALL = 1e4
"""Constants beside a product are at most so large, as biases by distance are."""
_SCALE = 1e3
"""No scale is larger; what is multiplied by more is a mask."""
_NODES = 32
_MOVES = frozenset(
    ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Tile", "Slice", "Gather", "GatherElements", "Cast")
)


def is_score(value: Value, most: float = _SMALL) -> bool:
    """Whether `value` is made of products and constants up to `most`: scaled, capped, added, joined and moved."""
    pending = [value]
    for _ in range(_NODES):
        if not pending:
            return True
        parts = _parts(pending.pop(), most)
        if parts is None:
            return False
        pending += parts
    return False


def is_finite(value: Value) -> bool:
    """Whether `value` is proved to be finite: scores, and masks with a fill that is a number."""
    return is_score(value) or not fills(value) & (Fill.NEGATIVE_INFINITY | Fill.OTHER)


def _parts(value: Value, most: float) -> list[Value] | None:
    """What must be scores for `value` to be one; None where it is not."""
    node, known, inner = value.node, constant_of(value), see_through(value)
    operands = [v for v in node.inputs if v is not None]
    if known is not None:
        return [] if known.dtype in dtypes.FLOATS and bool((np.abs(known.numpy()) <= most).all()) else None
    if inner is not None:
        return [inner]
    if node.domain:
        return None
    if node.op in ("Mul", "Div"):
        return _scaled(node.op, *operands)
    if node.op in ("Add", "Sub", "Concat"):
        return operands
    if node.op == "ConstantOfShape":
        fill = node.attr("value")
        return [] if fill is None or abs(fill.item()) <= most else None
    if node.op in _MOVES:
        return operands[:1]
    return [] if node.op in ("MatMul", "Tanh") else None


def _scaled(op: str, a: Value, b: Value) -> list[Value] | None:
    """What is multiplied, or divided, by a number that is a scale."""
    if op == "Mul" and number_of(b) is None:
        a, b = b, a
    k = number_of(b)
    return [a] if k is not None and (abs(k) <= _SCALE if op == "Mul" else abs(k) * _SCALE >= 1) else None

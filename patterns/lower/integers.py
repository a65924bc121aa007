"""What the kernel for products of bytes, com.microsoft MatMulIntegerToFloat, wants."""

from __future__ import annotations

import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Reason, constant_of, numbers_of

_UNSIGNED = dtypes.NUMBERS["uint8"]


def takes_bytes(a: Value, s: Value, b: Value, t: Value, axis: int | None, columns: int, root: Value) -> Reason:
    """Whether the kernel multiplies integers `a` of scale `s` by the constant matrix `b` of scale `t`.

    Scales of `b` lie along its dimension `axis`, `columns` is that of its columns; `root` is the product.
    """
    if constant_of(a) is not None or s.shape not in ((), (1,)):
        return "the activation is a constant, or has several scales"
    assert b.shape is not None
    along = 1 if axis is None else axis % 2
    if t.shape not in ((), (1,)) and (along != columns or t.shape != (b.shape[columns],)):
        return "the weights have no scale for each column"
    if any(reader.is_op("QuantizeLinear") for reader, _ in root.node.graph.consumers(root)):
        return "the result is quantized"
    return a.dtype == _UNSIGNED or _moves(a)


def _moves(a: Value) -> Reason:
    """Whether integers with a sign can be made without one."""
    node = a.node
    if a.dtype != dtypes.NUMBERS["int8"]:
        return "not bytes"
    zero = node.input(2) if node.is_op("QuantizeLinear") else None
    known = zero is not None and constant_of(zero) is not None and zero.shape in ((), (1,))
    return known or "the integers have a sign, and were not made here"


def without_sign(op: Builder, a: Value, z: Value | None) -> tuple[Value, Value | None]:
    """Integers and their zero point, both moved up by 128 where they have a sign."""
    if a.dtype == _UNSIGNED:
        return a, z
    x, scale, zero = a.node.inputs
    assert x is not None
    assert zero is not None
    moved = op.const((numbers_of(zero).astype(np.int16) + 128).astype(np.uint8), name="zero_point")
    return op.QuantizeLinear(x, scale, moved), moved

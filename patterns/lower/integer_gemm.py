from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.lower.integers import takes_bytes, without_sign
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, constant_of, kernel, like, numbers_of

Scale = Annotated[Value, like(dtype="float32")]
Matrix = Annotated[Value, const(rank=2, dtype=("uint8", "int8"))]


class IntegerGemm(Rule):
    """A Gemm of quantized matrices, as one kernel.

    Why: onnxruntime has a kernel for it only where the bias is of integers, and no activation follows; else it computes
    with floats.
    Before: Gemm(DequantizeLinear(a, s, z), DequantizeLinear(b, t, y), c), b transposed or not
    After: com.microsoft.MatMulIntegerToFloat(a, b, s, t, z, y) + c
    Safety: as of IntegerProduct; a c of integers is the floats that they stand for.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "MatMulIntegerToFloat")
    keeps_inner = True
    priority = 10

    def pattern(
        self,
        op: Ops,
        a: Value,
        s: Scale,
        b: Matrix,
        t: Scale,
        axis: Attr,
        turned: Attr,
        z: Value | None = None,
        y: Value | None = None,
        c: Value | None = None,
    ) -> Expr:
        left = op.DequantizeLinear(a, s, z, axis=lambda axis: True)
        return op.Gemm(left, op.DequantizeLinear(b, t, y, axis=axis), c, transB=turned)

    def where(
        self, a: Value, s: Value, b: Value, t: Value, axis: int | None, turned: int | None, root: Value
    ) -> Reason:
        return takes_bytes(a, s, b, t, axis, 0 if turned else 1, root)

    def rewrite(
        self,
        op: Builder,
        a: Value,
        s: Value,
        b: Value,
        t: Value,
        z: Value | None,
        y: Value | None,
        c: Value | None,
        turned: int | None,
    ) -> Value:
        a, z = without_sign(op, a, z)
        columns = op.const(numbers_of(b).T, like=b, name=b.name) if turned else b
        product = op.ms.MatMulIntegerToFloat(a, columns, s, t, z, y)
        return product if c is None else op.Add(product, _floats(op, c))


def _floats(op: Builder, c: Value) -> Value:
    """A bias; one of constant integers as floats."""
    inputs = c.node.inputs if c.node.is_op("DequantizeLinear") else ()
    constants = [constant_of(value) for value in inputs if value is not None]
    if len(constants) not in (2, 3) or None in constants:
        return c
    integers, scale, *zero = [tensor.numpy().astype(np.float64) for tensor in constants if tensor is not None]
    return op.const((integers - (zero[0] if zero else 0)) * scale, like=c, name="bias")

from typing import Annotated

import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule, const, numbers_of

Row = Annotated[Value, const(rank=1, dtype="float32")]
Scale = Annotated[Value, const(rank=(0, 1, 2), dtype="float32")]
Integers = Annotated[Value, const()]


class SmoothIntoScale(Rule):
    """What the result of a product with integer weights is smoothed by, taken over by the scales of the weights.

    Why: the weights have a scale for each column anyway; smoothing costs nothing then.
    Before: (x·dq(W, t)) · s, (float(MatMulInteger(q, W)) · p·t) · s, or com.microsoft.MatMulNBits(x, W, t) · s
    After: the same products with t·s, and without · s
    Safety: s is a positive number for each column; t is one for all columns, one for each, or one for each block of
    one. Nobody else reads the product.
    """

    stage = "quantize"

    def pattern(
        self,
        op: Ops,
        x: Value,
        w: Integers,
        t: Scale,
        s: Row,
        axis: Attr,
        block: Attr,
        others: Attrs,
        p: Value | None = None,
        z: Value | None = None,
        n: Value | None = None,
    ) -> Expr:
        floats = op.MatMul(x, op.DequantizeLinear(w, t, z, axis=axis, block_size=block))
        integers = op.prod(op.Cast(op.MatMulInteger(x, w, n, z), to=dtypes.FLOAT), p, t)
        blocks = op.ms.MatMulNBits(x, w, t, z, others=others)
        return op.Mul(floats, s) | op.prod(integers, s) | op.Mul(blocks, s)

    def where(
        self, w: Value, t: Value, s: Value, z: Value | None, axis: int | None, others: Attr, root: Value
    ) -> Reason:
        assert t.shape is not None
        if not (numbers_of(s) > 0).all():
            return "a factor is not positive"
        if root.shape is None or root.shape[-1:] != s.shape:
            return "the factors are not one for each column"
        if others is not None:
            return True
        if t.shape in ((), (1,)):
            return z is None or "one zero point for all columns"
        by_column = t.shape[-1:] == s.shape and (len(t.shape) == 2 or axis is None or axis % 2 == 1)
        return by_column or "the scales are not one for each column"

    def rewrite(
        self,
        op: Builder,
        x: Value,
        w: Value,
        t: Value,
        s: Value,
        p: Value | None,
        z: Value | None,
        n: Value | None,
        block: int | None,
        others: Attrs | None,
    ) -> Value:
        by_row = others is not None
        factor = numbers_of(s).astype(np.float64)
        scale = op.const(numbers_of(t) * (factor[:, None] if by_row else factor), like=t, name="weights_scale")
        if others is not None:
            return op.ms.MatMulNBits(x, w, scale, z, **others)
        if p is not None:
            return op.Mul(op.Cast(op.MatMulInteger(x, w, n, z), to=dtypes.FLOAT), op.Mul(p, scale))
        weights = op.DequantizeLinear(w, scale, z, axis=0 if block else 1, block_size=block)
        return op.MatMul(x, weights)

from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.fuse.channels import factor_of, float64
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, const

Matrix = Annotated[Value, const(rank=2, dtype=("bfloat16", "float16", "float32", "float64"))]
Row = Annotated[Value, const(rank=(0, 1))]


class ScaleIntoProduct(Rule):
    """A constant factor after a product by a constant matrix, moved into the matrix.

    Why: a pass over the activation goes.
    Before: (x·w + b) · k with k a number, or one for each column; also divided, and Gemm(x, w, b) · k
    After: x·(w·diag(k)) + b·k
    Safety: columns of a product are linear in those of the matrix, which nobody else reads. Floats only: an integer
    divided is rounded. New weights are computed in float64.
    """

    stage = "fuse"

    def pattern(
        self,
        op: Ops,
        x: Value,
        w: Matrix,
        others: Attrs,
        k: Row | None = None,
        d: Row | None = None,
        b: Row | None = None,
    ) -> Expr:
        product = op.MatMul(x, w)
        y = op.Gemm(x, w, b, others=others) | op.Add(product, b) | product
        return y * k | op.Div(y, d)

    def where(self, w: Value, k: Value | None, d: Value | None, b: Value | None, root: Value) -> Reason:
        if not np.isfinite(factor_of(k, d)).all():
            return "the factor is not finite"
        columns = root.shape[-1:] if root.shape is not None else None
        if any(row is not None and row.shape not in ((), (1,), columns) for row in (k, d, b)):
            return "a constant is not one number for each column"
        return w.uses == 1 or "the weight has other uses and would be written twice"

    def rewrite(
        self,
        op: Builder,
        x: Value,
        w: Value,
        k: Value | None,
        d: Value | None,
        b: Value | None,
        others: Attrs | None,
    ) -> Value:
        factor = factor_of(k, d)
        by_row = others is not None and others.get("transB") and factor.ndim
        scaled = op.const(float64(w) * (factor[:, None] if by_row else factor), like=w, name="scaled")
        bias = None if b is None else op.const(float64(b) * factor, like=b, name="scaled_bias")
        if others is not None:
            return op.Gemm(x, scaled, bias, **others)
        product = op.MatMul(x, scaled)
        return product if bias is None else op.Add(product, bias)

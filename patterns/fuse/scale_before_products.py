from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.fuse.channels import factor_of, float64
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const

Matrix = Annotated[Value, const(rank=2, dtype=("bfloat16", "float16", "float32", "float64"))]
Row = Annotated[Value, const(rank=(0, 1))]


class ScaleBeforeProducts(Rule):
    """A constant factor before products by constant matrices, moved into the matrices.

    Why: a pass over the activation goes.
    Before: y = x·diag(k), or x divided by a constant; y·W₁, y·W₂, ...
    After: x·(diag(k)·W₁), x·(diag(k)·W₂), ...
    Safety: every consumer of y is such a product, of floats, and nobody else reads a matrix. New weights are computed
    in float64.
    """

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, w: Matrix, k: Row | None = None, d: Row | None = None) -> Expr:
        return op.each_use(op.prod(x, k) | op.Div(x, d), lambda y: op.MatMul(y, w))

    def where(self, x: Value, k: Value | None, d: Value | None, w: list[Value]) -> Reason:
        factor, rows = factor_of(k, d), {m.shape[0] for m in w if m.shape}
        if not np.isfinite(factor).all() or (factor.size > 1 and {factor.size} != rows):
            return "the factor is not one number for each row of the weights"
        if x.shape is None or {*x.shape[-1:]} != rows:
            return "the factor is broadcast over the input"
        return all(m.uses == 1 for m in w) or "a weight has other uses and would be written twice"

    def rewrite(self, op: Builder, x: Value, k: Value | None, d: Value | None, w: list[Value]) -> tuple[Value, ...]:
        factor = factor_of(k, d).reshape(-1, 1)
        return tuple(op.MatMul(x, op.const(factor * float64(m), like=m, name="scaled")) for m in w)

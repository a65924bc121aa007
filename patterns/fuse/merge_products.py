from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.fuse.channels import float64
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const

Matrix = Annotated[Value, const(rank=2, dtype=("float32", "float64"))]


class MergeProducts(Rule):
    """Two products by constants, one after the other, as one.

    Why: fewer multiplications for every number of rows, and fewer weights to read.
    Before: (x·v)·w with v of shape (K, N), w of shape (N, M)
    After: x·(v·w)
    Safety: products are associative; KM < KN + NM, so low-rank factors stay. Nobody else reads v or w, nor x·v. The
    new matrix is computed in float64.
    """

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, v: Matrix, w: Matrix) -> Expr:
        return op.MatMul(op.MatMul(x, v), w)

    def where(self, v: Value, w: Value) -> Reason:
        (rows, inner), columns = float64(v).shape, float64(w).shape[-1]
        if rows * columns >= inner * (rows + columns):
            return f"{rows}×{columns} numbers are no fewer than {rows}×{inner} and {inner}×{columns}"
        return v.uses == w.uses == 1 or "a weight has other uses and would be written twice"

    def rewrite(self, op: Builder, x: Value, v: Value, w: Value) -> Value:
        return op.MatMul(x, op.const(float64(v) @ float64(w), like=w, name="merged"))

from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.fuse.channels import float64
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Rule, const

Row = Annotated[Value, const(dims=("N",), dtype=("bfloat16", "float16", "float32", "float64"))]


class GemmAddConstant(Rule):
    """A constant row added to a Gemm that adds one already, as one row.

    Why: a pass over the activation goes.
    Before: Gemm(a, b, c) + d
    After: Gemm(a, b, β·c + d)
    Safety: c and d are vectors of one length, of floats; added in float64.
    """

    stage = "fuse"

    def pattern(self, op: Ops, a: Value, b: Value, c: Row, d: Row, beta: Attr, others: Attrs) -> Expr:
        return op.Gemm(a, b, c, beta=beta, others=others) + d

    def rewrite(self, op: Builder, a: Value, b: Value, c: Value, d: Value, beta: float, others: Attrs) -> Value:
        return op.Gemm(a, b, op.const(beta * float64(c) + float64(d), like=c, name="bias"), **others)

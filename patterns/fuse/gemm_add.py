from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule, like

Matrix = Annotated[Value, like(rank=2)]


class GemmAdd(Rule):
    """What is added to a Gemm that adds nothing yet, added by the Gemm itself.

    Why: a pass over the activation goes.
    Before: Gemm(a, b) + c
    After: Gemm(a, b, c)
    Safety: c broadcasts to the result, and does not widen it.
    """

    stage = "fuse"

    def pattern(
        self, op: Ops, a: Matrix, b: Matrix, c: Annotated[Value, like(rank=(0, 1, 2))], beta: Attr, others: Attrs
    ) -> Expr:
        return op.Gemm(a, b, beta=beta, others=others) + c

    def where(self, a: Value, b: Value, c: Value, others: Attrs) -> Reason:
        assert a.shape is not None
        assert b.shape is not None
        assert c.shape is not None
        whole = (a.shape[others.get("transA", 0)], b.shape[1 - others.get("transB", 0)])
        fits = all(size in (1, there) for size, there in zip(reversed(c.shape), reversed(whole), strict=False))
        return fits or f"{c.shape} is not broadcast to {whole}"

    def rewrite(self, op: Builder, a: Value, b: Value, c: Value, others: Attrs) -> Value:
        return op.Gemm(a, b, c, **others)

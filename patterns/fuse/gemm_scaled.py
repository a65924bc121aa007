from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Number, Ops, Reason, Rule


class GemmScaled(Rule):
    """A Gemm times a number, by the factors it has.

    Why: a pass over the result goes.
    Before: Gemm(a, b, c, alpha, beta) · k
    After: Gemm(a, b, c, alpha=k·alpha, beta=k·beta)
    Safety: k is finite. In float16 and float64 the factors would be rounded another way, so float32 only.
    """

    stage = "fuse"
    priority = 1

    def pattern(
        self, op: Ops, a: Value, b: Value, k: Number, alpha: Attr, beta: Attr, others: Attrs, c: Value | None = None
    ) -> Expr:
        return op.scaled(op.Gemm(a, b, c, alpha=alpha, beta=beta, others=others), k)

    def where(self, a: Value, k: float) -> Reason:
        return (a.dtype == dtypes.FLOAT and abs(k) < float("inf")) or "not float32, or the factor is not finite"

    def rewrite(
        self,
        op: Builder,
        a: Value,
        b: Value,
        k: float,
        alpha: float,
        beta: float,
        others: Attrs,
        c: Value | None,
    ) -> Value:
        return op.Gemm(a, b, c, alpha=k * alpha, beta=None if c is None else k * beta, **others)

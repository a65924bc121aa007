from graphopt.ir import Value
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Rule


class TransposeIntoGemm(Rule):
    """A transposed operand of a Gemm, read as it lies.

    Why: the kernel reads either layout; a copy of the matrix goes.
    Before: Gemm(Transpose(x), b, c), or Gemm(a, Transpose(y), c)
    After: Gemm(x, b, c) with transA turned over, or Gemm(a, y, c) with transB
    Safety: a matrix has two dimensions, and the Transpose exchanges them. One that others read stays.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(
        self,
        op: Ops,
        others: Attrs,
        turned: Attr,
        x: Value | None = None,
        y: Value | None = None,
        a: Value | None = None,
        b: Value | None = None,
        c: Value | None = None,
    ) -> Expr:
        left = op.Gemm(op.Transpose(x, perm=_exchanges), b, c, transA=turned, others=others)
        return left | op.Gemm(a, op.Transpose(y, perm=_exchanges), c, transB=turned, others=others)

    def rewrite(
        self,
        op: Builder,
        x: Value | None,
        y: Value | None,
        a: Value | None,
        b: Value | None,
        c: Value | None,
        turned: int,
        others: Attrs,
    ) -> Value:
        if x is not None:
            return op.Gemm(x, b, c, transA=1 - turned, **others)
        return op.Gemm(a, y, c, transB=1 - turned, **others)


def _exchanges(perm: list[int] | None) -> bool:
    return perm is None or perm == [1, 0]

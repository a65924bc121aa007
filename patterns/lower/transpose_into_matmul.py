from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.products import batches, flags, fused_matmul, is_quantized
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule, kernel, like

Matrices = Annotated[Value, like(rank=(2, 3, 4, 5), dtype=("float32", "float16"))]


class TransposeIntoMatMul(Rule):
    """A transposed operand of a product, read as it lies.

    Why: the kernel reads either layout; a copy of the matrices goes.
    Before: Transpose(x)·b, or a·Transpose(y), of the last two dimensions, or of the first behind all but the last
    After: com.microsoft.FusedMatMul(x, b, transA=1), FusedMatMul(a, y, transB=1), with transBatchA or transBatchB
    Safety: where the first dimension moves, nothing is broadcast over the leading ones: the kernel does not do it then.
    A Transpose that others read stays. A quantized product stays as it is.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "FusedMatMul")
    keeps_inner = True

    def pattern(
        self,
        op: Ops,
        by: Attr,
        x: Matrices | None = None,
        y: Matrices | None = None,
        a: Matrices | None = None,
        b: Matrices | None = None,
        others: Attrs | None = None,
    ) -> Expr:
        left, right = op.Transpose(x, perm=by), op.Transpose(y, perm=by)
        fused = op.ms.FusedMatMul(left, b, others=others) | op.ms.FusedMatMul(a, right, others=others)
        return op.MatMul(left, b) | op.MatMul(a, right) | fused

    def where(
        self,
        x: Value | None,
        y: Value | None,
        a: Value | None,
        b: Value | None,
        by: list[int] | None,
        others: Attrs | None,
        root: Value,
    ) -> Reason:
        moved, side = (x, "A") if x is not None else (y, "B")
        assert moved is not None
        assert moved.rank is not None
        added = flags(side, by, moved.rank, others or {})
        if added is None:
            return f"the kernel does not read a permutation by {by}"
        if is_quantized(x, y, a, b):
            return "a quantized product"
        if (a or b) is None:
            return "an operand is missing"
        written = {**(others or {}), **added}
        if not (written.get("transBatchA") or written.get("transBatchB")):
            return True
        left, right = (batches(v, s, written) for v, s in ((x or a, "A"), (y or b, "B")) if v is not None)
        return left == right or f"{left} and {right} are broadcast"

    def rewrite(
        self,
        op: Builder,
        x: Value | None,
        y: Value | None,
        a: Value | None,
        b: Value | None,
        by: list[int] | None,
        others: Attrs | None,
    ) -> Value:
        moved, side = (x, "A") if x is not None else (y, "B")
        assert moved is not None
        assert moved.rank is not None
        added = flags(side, by, moved.rank, others or {})
        left, right = (x, b) if x is not None else (a, y)
        assert left is not None
        assert right is not None
        return fused_matmul(op, left, right, {**(others or {}), **(added or {})})

from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, const, kernel

Row = Annotated[Value, const(rank=1, dtype="float32")]


class IntegerProductBias(Rule):
    """A bias after a product of integers, added by the kernel.

    Why: a pass over the activation goes; a GELU after it has the less to do.
    Before: com.microsoft.MatMulIntegerToFloat(a, b, ...) + c, com.microsoft.MatMulNBits(a, b, ...) + c
    After: the same kernel with c as its last operand
    Safety: c is a constant vector, as long as a row of the result.
    """

    stage = "lower"
    needs = (kernel("com.microsoft", "MatMulIntegerToFloat"), kernel("com.microsoft", "MatMulNBits"))
    priority = 20

    def pattern(
        self,
        op: Ops,
        a: Value,
        b: Value,
        s: Value,
        c: Row,
        others: Attrs,
        t: Value | None = None,
        z: Value | None = None,
        y: Value | None = None,
    ) -> Expr:
        bytes = op.ms.MatMulIntegerToFloat(a, b, s, t, z, y)
        return op.Add(bytes | op.ms.MatMulNBits(a, b, s, z, others=others), c)

    def where(self, c: Value, root: Value) -> Reason:
        if root.shape is None:
            return "the shape of the sum is not known"
        return c.shape == root.shape[-1:] or f"the term has shape {c.shape}"

    def rewrite(
        self,
        op: Builder,
        a: Value,
        b: Value,
        s: Value,
        c: Value,
        t: Value | None,
        z: Value | None,
        y: Value | None,
        others: Attrs | None,
    ) -> Value:
        if t is not None:
            return op.ms.MatMulIntegerToFloat(a, b, s, t, z, y, c)
        return op.ms.MatMulNBits(a, b, s, z, None, c, **(others or {}))

from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, kernel


class BiasGelu(Rule):
    """A bias and the exact GELU after it, as one kernel.

    Why: one pass over the widest activation instead of two.
    Before: Gelu(x + b)
    After: com.microsoft.BiasGelu(x, b)
    Safety: b is a vector as long as x's last dimension.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "BiasGelu")
    priority = 10

    def pattern(self, op: Ops, x: Value, b: Annotated[Value, const(rank=1)]) -> Expr:
        return op.Gelu(op.sum(x, b), approximate="none")

    def where(self, x: Value, b: Value) -> Reason:
        if x.dtype == dtypes.DOUBLE:
            return "the kernel takes no float64"
        fits = x.shape is not None and x.shape[-1:] == b.shape
        return fits or f"the bias {b.shape} is not the last size of {x.shape}"

    def rewrite(self, op: Builder, x: Value, b: Value) -> Value:
        return op.ms.BiasGelu(x, b)

from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class LeakyReluFromParts(Rule):
    """Leaky ReLU.

    Why: two or three elementwise passes become one.
    Before: max(x, α·x), or α·x where x is negative and x elsewhere
    After: LeakyRelu(x, alpha=α)
    Safety: for the maximum, 0 < α < 1; above 1 it is the other branch. There is no kernel for float64.
    """

    stage = "recover"
    needs = kernel("", "LeakyRelu")

    def pattern(self, op: Ops, x: Floats, alpha: Number | None = None, slope: Number | None = None) -> Expr:
        steep, zero = op.scaled(x, slope), 0.0
        above = op.Greater(x, zero) | op.GreaterOrEqual(x, zero) | op.Less(zero, x) | op.LessOrEqual(zero, x)
        below = op.Less(x, zero) | op.LessOrEqual(x, zero) | op.Greater(zero, x) | op.GreaterOrEqual(zero, x)
        return op.Max(x, op.scaled(x, alpha)) | op.Where(above, x, steep) | op.Where(below, steep, x)

    def where(self, alpha: float | None, slope: float | None) -> Reason:
        if alpha is not None:
            return 0 < alpha < 1 or f"alpha is {alpha:g}"
        return (slope is not None and 0 < abs(slope) < 1e3) or f"alpha is {slope}"

    def rewrite(self, op: Builder, x: Value, alpha: float | None, slope: float | None) -> Value:
        return op.LeakyRelu(x, alpha=slope if alpha is None else alpha)

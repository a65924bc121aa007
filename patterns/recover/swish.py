import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, kernel


class SwishFromParts(Rule):
    """Swish: SiLU for α = 1, the sigmoid approximation of GELU ("quick GELU") for α = 1.702.

    Why: three elementwise passes become one.
    Before: x · σ(α·x)
    After: Swish(x, alpha=α)
    Safety: α is positive and finite, and in float64 a number that float32 has, too: attributes are float32.
    Source: Ramachandran, Zoph and Le, Searching for Activation Functions, 2017.
    """

    stage = "recover"
    needs = (kernel("", "Swish"), kernel("com.microsoft", "QuickGelu"))

    def pattern(self, op: Ops, x: Value, alpha: Number | None = None) -> Expr:
        return op.prod(x, op.Sigmoid(op.scaled(x, alpha)) | op.Sigmoid(x))

    def where(self, x: Value, alpha: float | None) -> Reason:
        if alpha is None:
            return True
        if x.dtype == dtypes.DOUBLE and float(np.float32(alpha)) != alpha:
            return f"an attribute cannot hold {alpha} exactly"
        return 0 < alpha < float("inf") or f"alpha is {alpha}"

    def rewrite(self, op: Builder, x: Value, alpha: float | None) -> Value:
        return op.Swish(x, alpha=1.0 if alpha is None else alpha)

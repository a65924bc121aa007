from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class GeluFromContrib(Rule):
    """GELU and Swish that an older tool wrote as contrib operators, with or without the bias before them.

    Why: the rules about GELU, Swish and biases see them, and the target's table chooses the kernel.
    Before: com.microsoft Gelu(x), BiasGelu(x, b), FastGelu(x, b) or QuickGelu(x, alpha=α)
    After: Gelu(x + b), for FastGelu approximate="tanh"; Swish(x, alpha=α)
    Safety: the same formulas, and α is positive and finite as elsewhere; float64 has constants of its own, and no
    kernel.
    """

    stage = "recover"
    needs = (kernel("", "Gelu"), kernel("com.microsoft", "Gelu"))

    def pattern(self, op: Ops, x: Floats, b: Value | None = None, alpha: Attr = None) -> Expr:
        return op.ms.Gelu(x) | op.ms.BiasGelu(x, b) | op.ms.FastGelu(x, b) | op.ms.QuickGelu(x, alpha=alpha)

    def where(self, alpha: float | None) -> Reason:
        return alpha is None or 0 < alpha < float("inf") or f"alpha is {alpha}"

    def rewrite(self, op: Builder, x: Value, b: Value | None, alpha: float | None, root: Value) -> Value:
        if alpha is not None:
            return op.Swish(x, alpha=alpha)
        biased = x if b is None else op.Add(x, b)
        return op.Gelu(biased, approximate="tanh" if root.node.op == "FastGelu" else "none")

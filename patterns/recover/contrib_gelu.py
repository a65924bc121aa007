from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class GeluFromContrib(Rule):
    """GELU that an older tool wrote as a contrib operator, with or without the bias before it.

    Why: the rules about GELU and about biases see it, and the target's table chooses its kernel.
    Before: com.microsoft Gelu(x), BiasGelu(x, b) or FastGelu(x, b)
    After: Gelu(x + b), for FastGelu approximate="tanh"
    Safety: the same two formulas; float64 has constants of its own, and no kernel.
    """

    stage = "recover"
    needs = (kernel("", "Gelu"), kernel("com.microsoft", "Gelu"))

    def pattern(self, op: Ops, x: Floats, b: Value | None = None) -> Expr:
        return op.ms.Gelu(x) | op.ms.BiasGelu(x, b) | op.ms.FastGelu(x, b)

    def rewrite(self, op: Builder, x: Value, b: Value | None, root: Value) -> Value:
        biased = x if b is None else op.Add(x, b)
        return op.Gelu(biased, approximate="tanh" if root.node.op == "FastGelu" else "none")

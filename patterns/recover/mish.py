from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class MishFromParts(Rule):
    """Mish.

    Why: three to five elementwise passes become one, or what the target computes best.
    Before: x · tanh(softplus(x)), softplus as the operator or as log(1 + exp(x))
    After: Mish(x)
    Safety: where the exponential of the second form overflows, its result is right now.
    Source: Misra, Mish: A Self Regularized Non-Monotonic Activation Function, 2019.
    """

    stage = "recover"
    needs = (kernel("", "Mish"), kernel("ir", "MishParts"))

    def pattern(self, op: Ops, x: Floats) -> Expr:
        return op.prod(x, op.Tanh(op.Softplus(x) | op.Log(1.0 + op.Exp(x))))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Mish(x)

from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class HardSwishFromParts(Rule):
    """Swish with a piecewise linear sigmoid.

    Why: four elementwise passes become two, whatever order they were written in.
    Before: x · HardSigmoid(x, 1/6, 1/2), or x · Clip(x + 3, 0, 6) / 6 with the factors in any order
    After: HardSwish(x)
    Safety: the constants are those of the formula. There is no kernel for float64.
    Source: Howard et al., Searching for MobileNetV3, 2019.
    """

    stage = "recover"
    needs = kernel("", "HardSwish")
    # The quotient alone is a hard sigmoid.
    priority = 1

    def pattern(self, op: Ops, x: Floats, alpha: Attr = None, beta: Attr = None) -> Expr:
        shifted = op.sum(x, 3.0)
        relu6 = op.Clip(shifted, min=0.0, max=6.0) | op.Min(op.Relu(shifted), 6.0)
        return op.prod(x, op.HardSigmoid(x, alpha=alpha, beta=beta)) | op.prod(x, relu6, 1 / 6)

    def where(self, alpha: float | None, beta: float | None) -> Reason:
        if alpha is None or beta is None:
            return True
        return (abs(alpha - 1 / 6) < 1e-6 and beta == 0.5) or f"the sigmoid is {alpha:g} x + {beta:g}"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.HardSwish(x)

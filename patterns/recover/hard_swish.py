from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class HardSwishFromParts(Rule):
    """Swish with a piecewise linear sigmoid.

    Why: four elementwise passes become two, whatever order they were written in.
    Before: x · HardSigmoid(x, 1/6, 1/2), x · Clip(x/6 + 1/2, 0, 1), or x · Clip(x + 3, 0, 6) / 6 in any order
    After: HardSwish(x)
    Safety: the constants are those of the formula. There is no kernel for float64.
    Source: Howard et al., Searching for MobileNetV3, 2019.
    """

    stage = "recover"
    needs = kernel("", "HardSwish")

    def pattern(self, op: Ops, x: Floats) -> Expr:
        unit = op.Clip(op.sum(op.scaled(x, 1 / 6), 0.5), min=0.0, max=1.0)
        shifted = op.sum(x, 3.0)
        relu6 = op.Clip(shifted, min=0.0, max=6.0) | op.Min(op.Relu(shifted), 6.0)
        return op.prod(x, op.HardSigmoid(x, alpha=1 / 6, beta=0.5) | unit) | op.prod(x, relu6, 1 / 6)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.HardSwish(x)

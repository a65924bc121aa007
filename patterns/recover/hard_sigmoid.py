import math
from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, kernel, like
from graphopt.rewrite.facts import close

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class HardSigmoidFromParts(Rule):
    """The piecewise linear sigmoid.

    Why: three elementwise passes become one, and HardSwish is found behind it.
    Before: Clip(a·x + b, 0, 1), or Clip(x + b, 0, c) / c, as Relu6(x + 3) / 6
    After: HardSigmoid(x, alpha=a, beta=b), or with a = 1/c and b/c
    Safety: a and b are finite and a is not zero; c is positive. There is no kernel for float64.
    Source: Courbariaux, Bengio and David, BinaryConnect, 2015.
    """

    stage = "recover"
    needs = kernel("", "HardSigmoid")

    def pattern(
        self, op: Ops, x: Floats, b: Number, a: Number | None = None, c: Number | None = None, k: Number | None = None
    ) -> Expr:
        unit = op.Clip(op.sum(op.scaled(x, a) | x, b), min=0.0, max=1.0)
        shifted = op.sum(x, b)
        clipped = op.Clip(shifted, min=0.0, max=c) | op.Min(op.Relu(shifted), c)
        return unit | op.scaled(clipped, k)

    def where(self, x: Value, b: float, a: float | None, c: float | None, k: float | None) -> Reason:
        if k is not None and (c is None or not (c > 0 and close(1 / c, k, x.dtype))):
            return f"{k} times the upper end {c} is not 1"
        return (a != 0 and math.isfinite(a or 1.0) and math.isfinite(b)) or f"it is {a} x + {b}"

    def rewrite(self, op: Builder, x: Value, b: float, a: float | None, c: float | None) -> Value:
        if c is not None:
            return op.HardSigmoid(x, alpha=1 / c, beta=b / c)
        return op.HardSigmoid(x, alpha=1.0 if a is None else a, beta=b)

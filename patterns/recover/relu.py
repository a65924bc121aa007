from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Rule, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class ReluFromParts(Rule):
    """ReLU.

    Why: the operator that runtimes fuse into the product or convolution before it.
    Before: max(x, 0), or Clip(x, 0) without an upper end
    After: Relu(x)
    Safety: the zero is one number; a wider one would widen the result. An infinite x stays infinite, where the
    runtime's Clip makes the largest number of it.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Floats) -> Expr:
        return op.Max(x, 0.0) | op.Clip(x, min=0.0)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Relu(x)

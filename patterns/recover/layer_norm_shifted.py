from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.norms import can_normalize, one_over_root
from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule, const, kernel

Vector = Annotated[Value, const()]


class LayerNormFromShift(Rule):
    """Layer normalization as a scale and a shift of its input, the way TensorFlow writes it.

    Why: eight passes over the activation become one.
    Before: x·s + (b − mean(x)·s) with s = g / √(mean(d²) + ε) and d = x − mean(x)
    After: LayerNormalization(x, g, b, epsilon=ε)
    Safety: as for d·s + b. Where the mean is many times the deviation, the two products cancel digits that the operator
    keeps. Gain and bias are constants of exactly the normalized shape.
    """

    stage = "recover"
    needs = kernel("", "LayerNormalization")

    def pattern(self, op: Ops, x: Value, axes: Attr, eps: Number, g: Vector, b: Vector) -> Expr:
        mean = op.ReduceMean(x, axes=axes, keepdims=1)
        d = x - mean
        inverse = one_over_root(op, op.ReduceMean(op.prod(d, d), axes=axes, keepdims=1) + eps)
        return op.sum(op.prod(x, inverse, g), op.Sub(b, op.prod(mean, inverse, g)))

    def where(self, x: Value, axes: list[int] | None, eps: float, g: Value, b: Value) -> Reason:
        if g.shape is not None and set(g.shape) <= {1}:
            return "a row of one element is its mean, and what is left of it is rounding"
        return can_normalize(x, axes, eps, g, b)

    def rewrite(self, op: Builder, x: Value, axes: list[int], eps: float, g: Value, b: Value) -> Value:
        return op.LayerNormalization(x, g, b, axis=-len(axes), epsilon=eps)

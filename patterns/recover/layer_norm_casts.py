from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.norms import in_half
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, numbers_of

Vector = Annotated[Value, const()]


class LayerNormCasts(Rule):
    """A layer normalization in float32 between half precision.

    Why: the operator computes in float32 by itself, and two passes over the activation go.
    Before: Cast(LayerNormalization(Cast(x, float32), g, b), float16), with or without the bias
    After: LayerNormalization(x, g, b)
    Safety: x is float16 or bfloat16 and so is the result, and g and b are exact in that type. The operator may round
    before its gain.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        x: Value,
        g: Vector,
        axis: Attr,
        eps: Attr,
        wide: Attr,
        narrow: Attr,
        b: Vector | None = None,
    ) -> Expr:
        return op.Cast(op.LayerNormalization(op.Cast(x, to=wide), g, b, axis=axis, epsilon=eps), to=narrow)

    def where(self, x: Value, g: Value, b: Value | None, wide: int, narrow: int) -> Reason:
        return in_half(x, wide, narrow, g, b)

    def rewrite(self, op: Builder, x: Value, g: Value, b: Value | None, axis: int, eps: float) -> Value:
        gain = op.const(numbers_of(g), like=x, name="gain")
        bias = None if b is None else op.const(numbers_of(b), like=x, name="bias")
        return op.LayerNormalization(x, gain, bias, axis=axis, epsilon=eps)

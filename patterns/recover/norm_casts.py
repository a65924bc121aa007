from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.norms import either_norm, in_half, same_norm
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, numbers_of

Vector = Annotated[Value, const()]


class NormCasts(Rule):
    """A layer or a root mean square normalization in float32 between half precision.

    Why: the operators compute in float32 by themselves, and two passes over the activation go.
    Before: Cast(LayerNormalization(Cast(x, float32), g, b), float16), with or without the bias, or the same of
    RMSNormalization(..., g)
    After: LayerNormalization(x, g, b), RMSNormalization(x, g)
    Safety: x is float16 or bfloat16 and so is the result, and g and b are exact in that type; a gain of 1 + w, which
    needs more digits, keeps its casts. The operators may round before their gain.
    """

    stage = "recover"

    def pattern(
        self, op: Ops, x: Value, g: Vector, axis: Attr, eps: Attr, wide: Attr, narrow: Attr, b: Vector | None = None
    ) -> Expr:
        return op.Cast(either_norm(op, op.Cast(x, to=wide), g, b, axis, eps), to=narrow)

    def where(self, x: Value, g: Value, b: Value | None, wide: int, narrow: int) -> Reason:
        return in_half(x, wide, narrow, g, b)

    def rewrite(self, op: Builder, x: Value, g: Value, b: Value | None, axis: int, eps: float, root: Value) -> Value:
        gain = op.const(numbers_of(g), like=x, name="gain")
        bias = None if b is None else op.const(numbers_of(b), like=x, name="bias")
        return same_norm(op, root, x, gain, bias, axis, eps)

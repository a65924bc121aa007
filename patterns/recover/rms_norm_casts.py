from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.norms import in_half
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, numbers_of


class RMSNormCasts(Rule):
    """A root mean square normalization in float32 between half precision.

    Why: the operator computes in float32 by itself, and two passes over the activation go.
    Before: Cast(RMSNormalization(Cast(x, float32), g), float16)
    After: RMSNormalization(x, g)
    Safety: x is float16 or bfloat16 and so is the result, and g is exact in that type; a gain of 1 + w, which needs
    more digits, keeps its casts. The operator may round before its gain.
    """

    stage = "recover"

    def pattern(
        self, op: Ops, x: Value, g: Annotated[Value, const()], axis: Attr, eps: Attr, wide: Attr, narrow: Attr
    ) -> Expr:
        return op.Cast(op.RMSNormalization(op.Cast(x, to=wide), g, axis=axis, epsilon=eps), to=narrow)

    def where(self, x: Value, g: Value, wide: int, narrow: int) -> Reason:
        return in_half(x, wide, narrow, g)

    def rewrite(self, op: Builder, x: Value, g: Value, axis: int, eps: float) -> Value:
        return op.RMSNormalization(x, op.const(numbers_of(g), like=x, name="gain"), axis=axis, epsilon=eps)

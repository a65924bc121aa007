from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, numbers_of


class RMSNormCasts(Rule):
    """A root mean square normalization in float32 between half precision.

    Why: the operator computes in float32 by itself, and two passes over the activation go.
    Before: Cast(RMSNormalization(Cast(x, float32), 1), float16)
    After: RMSNormalization(x, 1)
    Safety: x is float16 or bfloat16 and so is the result. The operator rounds before its gain, so a gain that is
    multiplied in float32 keeps its casts.
    """

    stage = "recover"

    def pattern(
        self, op: Ops, x: Value, ones: Annotated[Value, const()], axis: Attr, eps: Attr, wide: Attr, narrow: Attr
    ) -> Expr:
        return op.Cast(op.RMSNormalization(op.Cast(x, to=wide), ones, axis=axis, epsilon=eps), to=narrow)

    def where(self, x: Value, ones: Value, wide: int, narrow: int) -> Reason:
        if narrow != x.dtype or x.dtype not in (dtypes.FLOAT16, dtypes.BFLOAT16):
            return "the result is not in the half precision of the input"
        if wide != dtypes.FLOAT:
            return "it is not computed in float32"
        return bool((numbers_of(ones) == 1).all()) or "the gain is multiplied in float32"

    def rewrite(self, op: Builder, x: Value, ones: Value, axis: int, eps: float) -> Value:
        return op.RMSNormalization(x, op.const(numbers_of(ones), like=x, name="ones"), axis=axis, epsilon=eps)

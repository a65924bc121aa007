from graphopt.ir import Value, dtypes
from graphopt.patterns.recover.norms import can_normalize, ones_like, over_root
from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule, kernel


class LayerNormHalf(Rule):
    """Layer normalization of half precision whose variance alone is computed wide.

    Why: eight passes over the activation, most of them in float64, become one.
    Before: Cast(d / √(mean(d²) + ε), float16) with d = Cast(x − mean(x), float64 or float32)
    After: LayerNormalization(x, 1, epsilon=ε)
    Safety: x is float16 or bfloat16 and so is the result; the operator computes all of it in float32, the mean as well.
    Both means run over the same trailing axes of known sizes and keep their dimensions.
    """

    stage = "recover"
    needs = kernel("", "LayerNormalization")

    def pattern(self, op: Ops, x: Value, axes: Attr, eps: Number, wide: Attr, narrow: Attr) -> Expr:
        d = op.Cast(x - op.ReduceMean(x, axes=axes, keepdims=1), to=wide)
        variance = op.ReduceMean(op.prod(d, d), axes=axes, keepdims=1)
        return op.Cast(over_root(op, d, variance + eps), to=narrow)

    def where(self, x: Value, axes: list[int] | None, eps: float, wide: int, narrow: int) -> Reason:
        if narrow != x.dtype or x.dtype not in (dtypes.FLOAT16, dtypes.BFLOAT16):
            return "the result is not in the half precision of the input"
        return can_normalize(x, axes, eps) if wide in (dtypes.FLOAT, dtypes.DOUBLE) else "it is not computed wide"

    def rewrite(self, op: Builder, x: Value, axes: list[int], eps: float) -> Value:
        ones = op.const(ones_like(x, axes), like=x, name="ones")
        return op.LayerNormalization(x, ones, axis=-len(axes), epsilon=eps)

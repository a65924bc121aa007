from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.norms import can_normalize, less, ones_like, over_root
from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule, const, kernel


class LayerNormFromParts(Rule):
    """Layer normalization over trailing axes, before its bias.

    Why: seven passes over the activation become one.
    Before: d / √(mean(d²) + ε) with d = x − mean(x), by division or by any spelling of 1/√; a gain may stand inside
    After: LayerNormalization(x, g, epsilon=ε), with a gain of ones where there is none
    Safety: both means run over the same trailing axes and keep their dimensions; the normalized sizes are known; the
    gain is a constant of exactly the normalized shape. The variance as mean(x²) − mean(x)² is left alone: equal on
    paper, but it cancels, and what it loses would show.
    Source: Ba, Kiros and Hinton, Layer Normalization, 2016.
    """

    stage = "recover"
    needs = kernel("", "LayerNormalization")
    # Behind its mean, it is the root mean square normalization of d as well.
    priority = 1

    def pattern(self, op: Ops, x: Value, axes: Attr, eps: Number, g: Annotated[Value, const()] | None = None) -> Expr:
        # Two values or one: some compute the mean a second time for the variance.
        d, again = (less(op, x, op.ReduceMean(x, axes=axes, keepdims=1)) for _ in range(2))
        variance = op.ReduceMean(op.prod(again, again), axes=axes, keepdims=1)
        return over_root(op, d, variance + eps, g)

    def where(self, x: Value, axes: list[int] | None, eps: float, g: Value | None) -> Reason:
        return can_normalize(x, axes, eps, g)

    def rewrite(self, op: Builder, x: Value, axes: list[int], eps: float, g: Value | None) -> Value:
        gain = op.const(ones_like(x, axes), like=x, name="ones") if g is None else g
        return op.LayerNormalization(x, gain, axis=-len(axes), epsilon=eps)

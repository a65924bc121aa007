from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.norms import can_normalize, in_half, less, one_over_root, ones, over_root
from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule, const, kernel

Vector = Annotated[Value, const()]


class LayerNormFromParts(Rule):
    """Layer normalization over trailing axes, before its bias.

    Why: seven passes over the activation become one.
    Before: d / √(mean(d²) + ε) with d = x − mean(x), by division or by any spelling of 1/√, a gain may stand inside;
    the same of half precision where d is cast to a wider type and the result back; RMSNormalization(d, g); or as
    TensorFlow writes it, x·s + (b − mean(x)·s) with s = g / √(mean(d²) + ε)
    After: LayerNormalization(x, g, b, epsilon=ε), with a gain of ones where there is none
    Safety: all means run over the same trailing axes and keep their dimensions; gain and bias are constants of exactly
    the normalized shape. In half precision the operator computes all in float32, the mean as well. Where the mean is
    many times the deviation, TensorFlow's products cancel digits that the operator keeps. The variance as
    mean(x²) − mean(x)² is left alone: equal on paper, but what it loses would show.
    Source: Ba, Kiros and Hinton, Layer Normalization, 2016.
    """

    stage = "recover"
    needs = kernel("", "LayerNormalization")
    # Behind its mean, it is the root mean square normalization of d as well.
    priority = 1

    def pattern(
        self,
        op: Ops,
        x: Value,
        axes: Attr,
        eps: Number,
        g: Vector | None = None,
        b: Vector | None = None,
        axis: Attr = None,
        wide: Attr = None,
        narrow: Attr = None,
    ) -> Expr:
        mean, same = (op.ReduceMean(x, axes=axes, keepdims=1) for _ in range(2))
        # Two differences or one: some compute the mean a second time for the variance.
        d, again = less(op, x, mean), less(op, x, same)
        wider = op.Cast(d, to=wide)
        variance, wide_variance = (op.ReduceMean(op.prod(c, c), axes=axes, keepdims=1) for c in (again, wider))
        half = op.Cast(over_root(op, wider, wide_variance + eps), to=narrow)
        scale = one_over_root(op, variance + eps)
        shifted = op.sum(op.prod(x, scale, g), op.Sub(b, op.prod(mean, scale, g)))
        return over_root(op, d, variance + eps, g) | half | shifted | op.RMSNormalization(d, g, axis=axis, epsilon=eps)

    def where(self, x: Value, axes: Attr, eps: float, g: Attr, b: Attr, axis: Attr, wide: Attr, narrow: Attr) -> Reason:
        known = can_normalize(x, axes, eps, g, b)
        if known is not True or x.rank is None:
            return known
        if axis is not None and (axis % x.rank != x.rank - len(axes) or g.dtype != x.dtype):
            return f"the mean runs over {axes}, the norm from axis {axis}, or the gain has another type"
        if b is not None and set(b.shape) == {1}:
            return "a row of one element is its mean, and what is left of it is rounding"
        return narrow is None or in_half(x, wide, narrow)

    def rewrite(self, op: Builder, x: Value, axes: list[int], eps: float, g: Value | None, b: Value | None) -> Value:
        gain = ones(op, x, axes) if g is None else g
        return op.LayerNormalization(x, gain, b, axis=-len(axes), epsilon=eps)

import math
from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Expr, Factor, Number, Ops, Reason, Rule, like

Floats = ("bfloat16", "float16", "float32", "float64")
Query = Annotated[Value, like(rank=(3, 4), dtype=Floats, dims=(..., "S", None))]
KeyTransposed = Annotated[Value, like(dims=(..., None, "T"))]
Values = Annotated[Value, like(dims=(..., None, None))]
Bias = Annotated[Value, like(into=(..., "S", "T"))]


class AttentionFromParts(Rule):
    """Scaled dot-product attention, whatever its scale, bias, guard and layout.

    Why: the scores (B, N, S, T) are the largest tensor of a transformer; a fused kernel never writes them to memory.
    Before: softmax((s₁·q)·(s₂·kᵀ)·s₃ + bias)·v; each factor, the bias, a guard against NaN rows and casts around the
    softmax are optional
    After: ir.Attention(q, k, v, bias, scale=s₁·s₂·s₃, guard, softmax_dtype)
    Safety: the key enters as its transpose says, so any permutation is right (what cancels is left to clean); the bias
    is kept as it is spelled and may not widen the scores; probabilities that somebody else reads make no match.
    Source: Vaswani et al., Attention Is All You Need, 2017.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        q: Query,
        kt: KeyTransposed,
        v: Values,
        scale: Factor,
        bias: Bias | None = None,
        more: Bias | None = None,
        zero: Number | None = None,
        wide: Attr = None,
        narrow: Attr = None,
    ) -> Expr:
        products = op.MatMul(op.scaled(q, scale) | q, op.scaled(kt, scale) | kt)
        scores = op.scaled(products, scale) | products
        biased = op.sum(scores, bias, more) | scores + bias | scores
        in_wide = op.Cast(op.Softmax(op.Cast(biased, to=wide), axis=-1), to=narrow)
        weights = in_wide | op.Softmax(biased, axis=-1)
        guarded = op.Where(op.IsNaN(weights), zero, weights) | weights
        return op.MatMul(guarded, v)

    def where(self, q: Value, v: Value, scale: float, zero: float | None, wide: int | None) -> Reason:
        if q.dtype != v.dtype:
            return "the values have another type than the queries"
        if zero not in (None, 0.0):
            return f"NaN becomes {zero}, not 0"
        if wide not in (None, dtypes.FLOAT):
            return "the softmax is not in float32"
        return (scale > 0 and math.isfinite(scale)) or f"the scale is {scale}"

    def rewrite(
        self,
        op: Builder,
        q: Value,
        kt: Value,
        v: Value,
        scale: float,
        bias: Value | None,
        more: Value | None,
        zero: float | None,
        wide: int | None,
    ) -> Value:
        if bias is not None and more is not None:
            bias = op.Add(bias, more)
        k = op.transposed(kt)
        attrs = {"scale": scale, "guard": int(zero is not None), "softmax_dtype": wide}
        if q.rank == 4:
            return op.ir.Attention(q, k, v, bias, **attrs)
        # (B·N, S, D) is one batch of B·N heads.
        q, k, v = (op.Unsqueeze(x, axes=[0]) for x in (q, k, v))
        return op.Squeeze(op.ir.Attention(q, k, v, bias, **attrs), axes=[0])

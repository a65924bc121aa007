from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.patterns.recover.heads import all_to_heads, can_scale, from_heads, keep_columns
from graphopt.rewrite import Attr, Builder, Expr, Factor, Maybe, Number, Ops, Reason, Rule, all_of, like

Floats = ("bfloat16", "float16", "float32", "float64")
Query = Annotated[Value, like(rank=(2, 3, 4, 5), dtype=Floats, dims=(..., "S", None))]
KeyTransposed = Annotated[Value, like(dims=(..., None, "T"), shared=True)]
Values = Annotated[Value, like(dims=(..., None, None), shared=True)]
Bias = Annotated[Value, like(into=(..., "S", None))]


class AttentionFromParts(Rule):
    """Scaled dot-product attention, whatever its scale, cap, bias, guard and layout.

    Why: the scores (B, N, S, T) are the largest tensor of a transformer; a fused kernel never writes them to memory.
    Before: softmax(c·tanh((s₁·q)·(s₂·kᵀ)·s₃) + bias)·v; each factor, the tanh with c, the bias, a guard against NaN
    rows and casts around the softmax are optional
    After: ir.Attention(q, k, v, bias, scale=s₁·s₂·s₃·c, cap=c, guard, softmax_dtype), where one head of keys and values
    may be read by all heads of queries, or of a group
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
        cap: Number | None = None,
        zero: Number | None = None,
        narrow: Attr = None,
    ) -> Expr:
        products = op.MatMul(op.scaled(q, scale) | q, op.scaled(kt, scale) | kt)
        plain = op.scaled(products, scale) | products
        scores = op.prod(op.Tanh(plain), cap) | plain
        biased = op.sum(scores, bias, more) | scores + bias | scores
        wide = op.Cast(op.Softmax(op.Cast(biased, to=dtypes.FLOAT), axis=-1), to=narrow)
        weights = wide | op.Softmax(biased, axis=-1)
        guarded = op.Where(op.IsNaN(weights), zero, weights) | weights
        return op.MatMul(guarded, v)

    def where(
        self, q: Value, kt: Value, v: Value, scale: float, cap: Attr, zero: Attr, bias: Attr, more: Attr
    ) -> Reason:
        assert kt.shape is not None
        assert v.shape is not None
        if q.dtype != v.dtype or kt.shape[:-2] != v.shape[:-2]:
            return "the values have another type than the queries, or other heads than the keys"
        if zero not in (None, 0.0):
            return f"NaN becomes {zero}, not 0"
        return all_of(keep_columns(kt, v, bias, more), can_scale(scale, cap))

    def rewrite(
        self,
        op: Builder,
        q: Value,
        kt: Value,
        v: Value,
        scale: float,
        bias: Maybe,
        more: Maybe,
        cap: float | None,
        zero: float | None,
        narrow: int | None,
    ) -> Value:
        if bias is not None and more is not None:
            bias = op.Add(bias, more)
        operands = all_to_heads(op, q, kt, v, bias)
        attrs = {"scale": scale * (cap or 1.0), "cap": cap, "softmax_dtype": dtypes.FLOAT if narrow else None}
        y = op.ir.Attention(*operands, guard=int(zero is not None), **attrs)
        return from_heads(op, q, y)

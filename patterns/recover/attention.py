import math
from typing import Annotated

from graphopt.ir import Shape, Value, dtypes
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, like

Heads = Annotated[Value, like(rank=(3, 4))]


class AttentionFromParts(Rule):
    """Scaled dot-product attention, whatever its scale, bias, guard and layout.

    Why: the scores (B, N, S, T) are the largest tensor of a transformer; a fused kernel never writes them to memory.
    Before: softmax((s₁·q)·(s₂·kᵀ)·s₃ + bias)·v, each factor, the bias and a guard against NaN rows optional
    After: ir.Attention(q, k, v, bias, scale=s₁·s₂·s₃, guard)
    Safety: the key enters as its transpose says, so any permutation is right (what cancels is left to clean); the bias
    is kept as it is spelled and may not widen the scores; probabilities that somebody else reads make no match.
    Source: Vaswani et al., Attention Is All You Need, 2017.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        q: Heads,
        kt: Heads,
        v: Heads,
        s1: Number | None = None,
        s2: Number | None = None,
        s3: Number | None = None,
        bias: Value | None = None,
        more: Value | None = None,
        zero: Number | None = None,
    ) -> Expr:
        products = op.MatMul(op.scaled(q, s1) | q, op.scaled(kt, s2) | kt)
        scores = op.scaled(products, s3) | products
        biased = op.sum(scores, bias, more) | scores + bias | scores
        weights = op.Softmax(biased, axis=-1)
        guarded = op.Where(op.IsNaN(weights), zero, weights) | weights
        return op.MatMul(guarded, v)

    def where(
        self,
        q: Value,
        kt: Value,
        v: Value,
        bias: Value | None,
        more: Value | None,
        zero: float | None,
        s1: float | None,
        s2: float | None,
        s3: float | None,
    ) -> Reason:
        if zero not in (None, 0.0):
            return f"NaN becomes {zero}, not 0"
        scale = _product(s1, s2, s3)
        if not (scale > 0 and math.isfinite(scale)):
            return f"the scale is {scale}"
        if q.dtype not in dtypes.FLOATS or q.shape is None or kt.shape is None or v.shape is None:
            return "the types are not known"
        if not (len(q.shape) == len(kt.shape) == len(v.shape)):
            return f"ranks {len(q.shape)}, {len(kt.shape)} and {len(v.shape)} differ"
        if not (q.shape[:-2] == kt.shape[:-2] == v.shape[:-2]):
            return f"batch and heads differ: {q.shape}, {kt.shape}, {v.shape}"
        scores = (*q.shape[:-1], kt.shape[-1])
        for added in (bias, more):
            if added is not None and not _broadcasts(added.shape, scores):
                return f"the bias {added.shape} does not broadcast to {scores}"
        return True

    def rewrite(
        self,
        op: Builder,
        q: Value,
        kt: Value,
        v: Value,
        bias: Value | None,
        more: Value | None,
        zero: float | None,
        s1: float | None,
        s2: float | None,
        s3: float | None,
    ) -> Value:
        if bias is not None and more is not None:
            bias = op.Add(bias, more)
        assert q.rank is not None
        k = op.Transpose(kt, perm=[*range(q.rank - 2), q.rank - 1, q.rank - 2])
        scale, guard = _product(s1, s2, s3), int(zero is not None)
        if q.rank == 4:
            return op.ir.Attention(q, k, v, bias, scale=scale, guard=guard)
        # (B·N, S, D) is one batch of B·N heads.
        q, k, v = (op.Unsqueeze(x, axes=[0]) for x in (q, k, v))
        y = op.ir.Attention(q, k, v, bias, scale=scale, guard=guard)
        return op.Squeeze(y, axes=[0])


def _product(*factors: float | None) -> float:
    return math.prod(1.0 if f is None else f for f in factors)


def _broadcasts(shape: Shape | None, to: Shape) -> bool:
    """Whether a value of `shape` broadcasts to `to` without widening it."""
    if shape is None or len(shape) > len(to):
        return False
    return all(size in (1, whole) for size, whole in zip(reversed(shape), reversed(to), strict=False))

from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Factor, Number, Ops, Reason, Rule, like

Half = Annotated[Value, like(dtype=("bfloat16", "float16"))]
Single = Annotated[Value, like(dtype="float32")]


class AttentionWidened(Rule):
    """Attention whose scores are widened before the mask, computed in float32 from the queries and keys on.

    Why: weights and values are in float32 there, and attention has one type for all operands.
    Before: softmax(Cast(s·q·kᵀ) + bias)·v with q and k of half precision; bias and guard optional
    After: softmax(s·Cast(q)·Cast(k)ᵀ + bias)·v
    Safety: widening is exact, and scores that were rounded to half precision are no longer; the factors do not fold.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        q: Half,
        kt: Half,
        v: Single,
        scale: Factor,
        bias: Value | None = None,
        zero: Number | None = None,
    ) -> Expr:
        products = op.MatMul(op.scaled(q, scale) | q, op.scaled(kt, scale) | kt)
        wide = op.check(op.Cast(op.scaled(products, scale) | products, to=dtypes.FLOAT), is_alone)
        weights = op.Softmax(wide + bias | wide, axis=-1)
        guarded = op.Where(op.IsNaN(weights), zero, weights) | weights
        return op.anchor(op.MatMul(guarded, v), wide)

    def where(self, scale: float) -> Reason:
        return abs(scale) < float("inf") or f"the scale is {scale:g}"

    def rewrite(self, op: Builder, q: Value, kt: Value, scale: float) -> Value:
        wide = [op.Cast(x, to=dtypes.FLOAT) for x in (q, kt)]
        return op.scaled(op.MatMul(*wide), scale)


def is_alone(scores: Value) -> Reason:
    """Whether only one operation reads the scores."""
    return scores.uses == 1 or "somebody else reads the scores"

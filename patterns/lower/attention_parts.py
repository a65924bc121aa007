from graphopt.ir import Value
from graphopt.patterns.lower.heads import Mask, below_each_other, share_keys, side_by_side
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class AttentionToParts(Rule):
    """The meaning `ir.Attention` spelled in standard operations.

    Why: where the target has no kernel that is exact for this mask, the plain form is at least as fast as it came.
    Before: ir.Attention(q, k, v, bias)
    After: softmax(cap(scale · q·kᵀ) + bias)·v, with the guard where there was one; heads that share keys are multiplied
    with them as one matrix of their rows, so that nothing is repeated
    Safety: this is the definition of `ir.Attention`; cap(s) = c·tanh(s/c).
    """

    stage = "lower"
    priority = -10

    def pattern(
        self, op: Ops, q: Value, k: Value, v: Value, scale: Attr, cap: Attr, guard: Attr, wide: Attr, bias: Mask = None
    ) -> Expr:
        return op.ir.Attention(q, k, v, bias, scale=scale, cap=cap, guard=guard, softmax_dtype=wide)

    def where(self, q: Value, k: Value) -> Reason:
        return share_keys(q, k)

    def rewrite(
        self, op: Builder, q: Value, k: Value, v: Value, bias: Mask, scale: float, cap: float, guard: int, wide: int
    ) -> Value:
        scores = op.MatMul(below_each_other(op, q, k), op.transposed(k))
        scores = op.scaled(op.Tanh(op.scaled(scores, scale / cap)), cap) if cap else op.scaled(scores, scale)
        if bias is not None:
            scores = op.Add(side_by_side(op, scores, q), bias)
        if wide:
            weights = op.Cast(op.Softmax(op.Cast(scores, to=wide), axis=-1), to=q.dtype)
        else:
            weights = op.Softmax(scores, axis=-1)
        if guard:
            weights = op.Where(op.IsNaN(weights), op.const(0.0, like=q), weights)
        if bias is not None:
            weights = below_each_other(op, weights, k)
        return side_by_side(op, op.MatMul(weights, v), q)

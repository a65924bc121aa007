from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class AttentionToParts(Rule):
    """The meaning `ir.Attention` spelled in standard operations.

    Why: where the target has no kernel that is exact for this mask, the plain form is at least as fast as it came.
    Before: ir.Attention(q, k, v, bias)
    After: softmax(scale · q·kᵀ + bias)·v, with the guard where there was one
    Safety: this is the definition of `ir.Attention`, where each head has keys of its own.
    """

    stage = "lower"
    priority = -10

    def pattern(
        self, op: Ops, q: Value, k: Value, v: Value, scale: Attr, guard: Attr, wide: Attr, bias: Value | None = None
    ) -> Expr:
        return op.ir.Attention(q, k, v, bias, scale=scale, guard=guard, softmax_dtype=wide)

    def where(self, q: Value, k: Value) -> Reason:
        return (q.shape is not None and k.shape is not None and q.shape[1] == k.shape[1]) or "heads share their keys"

    def rewrite(
        self, op: Builder, q: Value, k: Value, v: Value, scale: float, guard: int, wide: int, bias: Value | None
    ) -> Value:
        scores = op.scaled(op.MatMul(q, op.transposed(k)), scale)
        if bias is not None:
            scores = op.Add(scores, bias)
        if wide:
            weights = op.Cast(op.Softmax(op.Cast(scores, to=wide), axis=-1), to=q.dtype)
        else:
            weights = op.Softmax(scores, axis=-1)
        if guard:
            weights = op.Where(op.IsNaN(weights), op.const(0.0, like=q), weights)
        return op.MatMul(weights, v)

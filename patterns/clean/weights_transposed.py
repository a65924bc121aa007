from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class WeightsTransposed(Rule):
    """Attention whose values stand on the left, with channels in rows, as images have them.

    Why: the one form that attention knows has its weights on the left.
    Before: v·Transpose(Softmax(s, axis=-1)), with v of shape (B, N, D, T)
    After: Transpose(Softmax(s, axis=-1)·Transpose(v))
    Safety: (A·B)ᵀ = Bᵀ·Aᵀ; the Transpose exchanges the last two dimensions only.
    """

    stage = "clean"

    def pattern(self, op: Ops, v: Value, s: Value, perm: Attr) -> Expr:
        return op.MatMul(v, op.Transpose(op.Softmax(s, axis=-1), perm=perm))

    def where(self, v: Value, s: Value, perm: list[int] | None) -> Reason:
        if s.rank is None or s.rank != v.rank:
            return f"ranks {v.rank} and {s.rank}"
        exchanged = [*range(s.rank - 2), s.rank - 1, s.rank - 2]
        return (perm or [*reversed(range(s.rank))]) == exchanged or f"the weights are permuted by {perm}"

    def rewrite(self, op: Builder, v: Value, s: Value) -> Value:
        return op.transposed(op.MatMul(op.Softmax(s, axis=-1), op.transposed(v)))

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel


class LayerNormCentred(Rule):
    """A root mean square normalization behind its mean.

    Why: two more passes over the activation go.
    Before: RMSNormalization(x − mean(x), g, epsilon=ε)
    After: LayerNormalization(x, g, epsilon=ε)
    Safety: the mean runs over the normalized axes and keeps its dimensions. In half precision the operator computes the
    mean in float32.
    """

    stage = "recover"
    needs = kernel("", "LayerNormalization")

    def pattern(self, op: Ops, x: Value, g: Value, axes: Attr, axis: Attr, eps: Attr) -> Expr:
        return op.RMSNormalization(x - op.ReduceMean(x, axes=axes, keepdims=1), g, axis=axis, epsilon=eps)

    def where(self, x: Value, g: Value, axes: list[int] | None, axis: int) -> Reason:
        if x.shape is None or not axes or g.dtype != x.dtype:
            return "the axes or the types are not known"
        rank = len(x.shape)
        trailing = list(range(axis % rank, rank))
        return sorted(a % rank for a in axes) == trailing or f"the mean runs over {axes}, the norm over {trailing}"

    def rewrite(self, op: Builder, x: Value, g: Value, axis: int, eps: float) -> Value:
        return op.LayerNormalization(x, g, axis=axis, epsilon=eps)

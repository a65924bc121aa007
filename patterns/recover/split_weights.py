from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.clean.views import groups
from graphopt.patterns.recover.split_scores import beside, splits
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, like

Matrices = Annotated[Value, like(rank=3)]


class SplitWeights(Rule):
    """Weights that are merged only to meet the values, with the values split as they are.

    Why: the view between the softmax and the product hides attention.
    Before: Reshape(w, (B·N, S, T))·v with w of shape (B, N, S, T) a softmax, guarded or not, v of shape (B·N, T, D); or
    Reshape(w, (B, N·S, T))·v with v of shape (B, T, D)
    After: Reshape(w·Reshape(v, (B, N, T, D)), (B·N, S, D)), or with v as (B, 1, T, D)
    Safety: the view merges neighbours and nothing else; heads are a known number; shapes are equal as polynomials. No
    batch is repeated by the product.
    """

    stage = "recover"

    def pattern(self, op: Ops, s: Value, v: Matrices, zero: Number | None = None) -> Expr:
        w = op.Softmax(s, axis=-1)
        return op.MatMul(op.Reshape(op.Where(op.IsNaN(w), zero, w) | w, ...), v)

    def where(self, s: Value, v: Value, root: Value) -> Reason:
        merged = _merged(root).shape
        if v.shape is None or merged is None or v.shape[0] != merged[0]:
            return "one batch meets many"
        return splits(groups(s.shape, merged), s) or f"{s.shape} becomes {merged}"

    def rewrite(self, op: Builder, s: Value, v: Value, root: Value, zero: float | None) -> Value | None:
        how = groups(s.shape, _merged(root).shape)
        if how is None or root.shape is None:
            return None
        w = op.Softmax(s, axis=-1)
        if zero is not None:
            w = op.Where(op.IsNaN(w), op.const(zero, like=w), w)
        return op.reshape(op.MatMul(w, beside(op, v, how, s)), root.shape)


def _merged(product: Value) -> Value:
    weights = product.node.inputs[0]
    assert weights is not None
    return weights

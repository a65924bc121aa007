from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, like

Matrices = Annotated[Value, like(dims=(..., None, None))]


class WeightsInColumns(Rule):
    """Attention with a query for each column: softmax down the columns, values on the left.

    Why: the one form that attention knows has a query for each row.
    Before: v·Softmax(s·(k·q) + b, axis=-2), scale and bias optional
    After: Transpose(Softmax(s·(qᵀ·kᵀ) + bᵀ, axis=-1)·vᵀ)
    Safety: (A·B)ᵀ = Bᵀ·Aᵀ; all operands have the same leading dimensions, and the bias their rank.
    """

    stage = "clean"

    def pattern(
        self, op: Ops, v: Matrices, k: Matrices, q: Matrices, scale: Number | None = None, b: Value | None = None
    ) -> Expr:
        product = op.MatMul(k, q)
        scores = op.scaled(product, scale) | product
        return op.MatMul(v, op.Softmax(scores + b | scores, axis=-2))

    def where(self, q: Value, b: Value | None, root: Value) -> Reason:
        if root.node.graph.opsets.get("", 1) < 13:
            return "the axis means the rest of the shape in this opset"
        return b is None or b.rank == q.rank or f"the bias has rank {b.rank}, the scores {q.rank}"

    def rewrite(self, op: Builder, v: Value, k: Value, q: Value, scale: float | None, b: Value | None) -> Value:
        scores = op.scaled(op.MatMul(op.transposed(q), op.transposed(k)), scale)
        if b is not None:
            scores = op.Add(scores, op.transposed(b))
        return op.transposed(op.MatMul(op.Softmax(scores, axis=-1), op.transposed(v)))

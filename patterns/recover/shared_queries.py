from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, like

Matrices = Annotated[Value, like(dims=(..., None, None))]


class SharedQueries(Rule):
    """Queries that all batches share, repeated for each.

    Why: learned queries are one for all inputs, and attention wants as many as there are keys.
    Before: Softmax(s·(q·kᵀ) + b)·v, with q of shape (1, N, S, D) or (N, S, D); scale and bias optional
    After: the same with Expand(q, (B, N, S, D))
    Safety: the product broadcasts q in the same way; kᵀ and v have the same leading dimensions.
    """

    stage = "recover"

    def pattern(
        self, op: Ops, q: Value, kt: Matrices, v: Matrices, scale: Number | None = None, b: Value | None = None
    ) -> Expr:
        product = op.MatMul(q, kt)
        scores = op.scaled(product, scale) | product
        return op.anchor(op.MatMul(op.Softmax(scores + b | scores, axis=-1), v), product)

    def where(self, q: Value, kt: Value) -> Reason:
        assert kt.shape is not None
        if q.shape is None or len(q.shape) < 2:
            return "the shape of the queries is not known"
        own, wanted = q.shape[:-2], kt.shape[:-2]
        pairs = zip(reversed(own), reversed(wanted), strict=False)
        shared = own != wanted and len(own) <= len(wanted) and all(size in (1, whole) for size, whole in pairs)
        return shared or f"{own} is not shared by {wanted}"

    def rewrite(self, op: Builder, q: Value, kt: Value) -> Value:
        assert q.shape is not None
        assert kt.shape is not None
        leading = kt.shape[:-2]
        sizes = [op.size(kt, axis) for axis in range(len(leading))]
        return op.MatMul(op.expand(q, (*leading, *q.shape[-2:]), [*sizes, 1, 1]), kt)

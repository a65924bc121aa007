from typing import Annotated

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, constant_of, like, number_of

Matrices = Annotated[Value, like(dims=(..., None, None))]
_PASSED = ("Cast", "Dropout", "Identity", "Reshape", "Where")


class RowFactor(Rule):
    """A factor for each head or row of scores, moved onto the queries.

    Why: attention has one number for a scale; a temperature of each head belongs to the queries, which are smaller.
    Before: t·(q·kᵀ), with t of shape (N, 1, 1) or any other that has 1 for the columns
    After: (t·q)·kᵀ
    Safety: row by row the same factor; t does not widen the queries; q and k are both computed. A gate of each head
    behind the product of weights and values stays there, where it does not hide them.
    """

    stage = "clean"

    def pattern(self, op: Ops, q: Matrices, kt: Matrices, t: Value) -> Expr:
        return op.Mul(op.MatMul(q, kt), t)

    def where(self, q: Value, kt: Value, t: Value) -> Reason:
        if q.dtype not in dtypes.FLOATS or constant_of(q) is not None or constant_of(kt) is not None:
            return "not a product of two activations"
        if _are_weights(q):
            return "weights stay between their softmax and the values"
        assert q.shape is not None
        if t.shape is None or number_of(t) is not None:
            return "a number is a scale as it is, and of other factors the shape must be known"
        pairs = zip(reversed(t.shape), (1, *reversed(q.shape[:-1])), strict=False)
        fits = len(t.shape) <= len(q.shape) and all(factor in (1, size) for factor, size in pairs)
        return fits or f"{t.shape} is not a factor for each row of {q.shape}"

    def rewrite(self, op: Builder, q: Value, kt: Value, t: Value) -> Value:
        return op.MatMul(op.Mul(q, t), kt)


def _are_weights(x: Value) -> bool:
    """Whether `x` is a softmax, guarded or not, in any view."""
    while not x.node.is_op("Softmax"):
        operand = x.node.inputs[-1 if x.node.op == "Where" else 0] if x.node.op in _PASSED and x.node.inputs else None
        if operand is None or x.node.domain:
            return False
        x = operand
    return True

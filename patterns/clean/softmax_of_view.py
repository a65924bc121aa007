from graphopt.ir import Value
from graphopt.patterns.clean.unmerge_batches import keeps_matrices
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class SoftmaxOfView(Rule):
    """A softmax over the last axis does not mind how the others are grouped.

    Why: the view between a mask and its softmax hides attention.
    Before: Softmax(Reshape(x, (B·N, S, T)), axis=-1) with x of shape (B, N, S, T)
    After: Reshape(Softmax(x, axis=-1), (B·N, S, T))
    Safety: the view keeps the axis the softmax runs over; shapes are equal as polynomials.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Softmax(op.Reshape(x, ...), axis=-1)

    def where(self, x: Value, root: Value) -> Reason:
        return keeps_matrices(x.shape, root.shape) or f"{x.shape} becomes {root.shape}"

    def rewrite(self, op: Builder, x: Value, root: Value) -> Value:
        assert root.shape is not None
        return op.reshape(op.Softmax(x, axis=-1), root.shape)

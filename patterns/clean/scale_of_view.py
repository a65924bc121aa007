from graphopt.ir import Value, dtypes
from graphopt.patterns.clean.unmerge_batches import keeps_matrices
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule


class ScaleOfView(Rule):
    """A view that merges leading dimensions, moved behind a constant factor.

    Why: behind it, it meets the product whose batches it merges, and goes away with it.
    Before: k · Reshape(x, (B·N, S, D)) with x of shape (B, N, S, D)
    After: Reshape(k · x, (B·N, S, D))
    Safety: element by element the same.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(self, op: Ops, x: Value, k: Number) -> Expr:
        return op.scaled(op.Reshape(x, ...), k)

    def where(self, x: Value, root: Value) -> Reason:
        if x.dtype not in dtypes.FLOATS:
            return "not a float"
        return keeps_matrices(x.shape, root.shape) or f"{x.shape} becomes {root.shape}"

    def rewrite(self, op: Builder, x: Value, k: float, root: Value) -> Value:
        assert root.shape is not None
        return op.reshape(op.scaled(x, k), root.shape)

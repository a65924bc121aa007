from graphopt.ir import Value
from graphopt.patterns.clean.unmerge_batches import keeps_matrices
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class HoistReshape(Rule):
    """A view that merges leading dimensions, moved behind a transpose of the last two.

    Why: behind it, it meets the product whose batches it merges, and goes away with it.
    Before: Transpose(Reshape(x, (B·N, S, D)), [0, 2, 1]) with x of shape (B, N, S, D)
    After: Reshape(Transpose(x, [0, 1, 3, 2]), (B·N, D, S))
    Safety: shapes are equal as polynomials.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Transpose(op.Reshape(x, ...), perm=[0, 2, 1])

    def where(self, x: Value, root: Value) -> Reason:
        merged = root.node.inputs[0]
        shape = merged.shape if merged is not None else None
        return keeps_matrices(x.shape, shape) or f"{x.shape} becomes {shape}"

    def rewrite(self, op: Builder, x: Value, root: Value) -> Value:
        assert root.shape is not None
        return op.reshape(op.transposed(x), root.shape)
